"""The process that runs llama.cpp's quantizer and tries out the result, since llama.cpp may abort.

    python -m slices.quantize_child quantize SOURCE TARGET FTYPE THREADS
    python -m slices.quantize_child verify FILE FOLDER

Prints a line `done total` for each tensor. What went wrong goes to stderr, with exit status 1. Ends when
its stdin does, so as not to outlive the process that started it, which is `slices.quantize`.
"""

import ctypes
import os
import re
import sys
import threading
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from slices.errors import RunFailed, SliceError
from slices.llama_library import last_complaint, load_library, watch
from slices.llama_runtime import LlamaRuntime

PROBE = (
    "The enzyme's Km is 3.2 µM,  E = mc².\n\n\tdef f(x):\n    return x**2  # naïve\n"
    "L'été, où 東京 🙂 <b>2 === 2</b>\u2028 <end_of_turn>"
)
_PROGRESS = re.compile(r"\[ *(\d+)/ *(\d+)\]")


def quantize(source: str, target: str, ftype: int, threads: int) -> None:
    """Quantize the GGUF `source` to `target`; `ftype` is llama.cpp's number of the mix."""
    library = load_library()
    watch(_print_progress)
    params = library.llama_model_quantize_default_params()
    params.ftype, params.nthread = ftype, threads
    status = library.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params))
    if status:
        raise RunFailed(f"llama.cpp could not quantize (status {status}): {last_complaint()}")


def verify(file: Path, folder: Path) -> None:
    """Load `file`, run a text through it, and hold its tokens against those of `folder`'s tokenizer.

    Raises:
        RunFailed: it does not load, its tokens differ, or a probability is not finite.
    """
    runtime = LlamaRuntime(file, threads=1, context=512)
    try:
        tokens = runtime.encode(PROBE)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.encode_special_tokens = True
        expected = tokenizer.encode(PROBE, add_special_tokens=False).ids
        if tokens[1:] != expected:
            raise RunFailed(
                f"{file.name} cuts text otherwise than {folder / 'tokenizer.json'}: serve it in torch"
            )
        if not np.isfinite(runtime.logprobs(tokens)).all():
            raise RunFailed(f"{file.name} gives probabilities that are no numbers")
    finally:
        runtime.close()


def _print_progress(line: str) -> None:
    found = _PROGRESS.match(line)
    if found:
        print(found[1], found[2], flush=True)


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def main(arguments: list[str]) -> int:
    """Do what the arguments say; the exit status."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        match arguments:
            case ["quantize", source, target, ftype, threads]:
                quantize(source, target, int(ftype), int(threads))
            case ["verify", file, folder]:
                verify(Path(file), Path(folder))
            case _:
                raise RunFailed(f"expected 'quantize' or 'verify' and their arguments, found {arguments}")
    except SliceError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # not sys.exit: the thread still holds stdin
