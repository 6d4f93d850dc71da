"""The child process that runs llama.cpp's quantizer and checks the result, since llama.cpp may abort.

    python -m slices.quant.child plan PARAMS...     prints `next` for each, then `tensor type` for each
                                                    tensor; writes nothing
    python -m slices.quant.child quantize PARAMS    prints `done total` for each tensor
    python -m slices.quant.child tokens FILE FOLDER     only the vocabulary need be there
    python -m slices.quant.child verify FILE FOLDER

PARAMS is JSON: `slices.quant.quantizer.QuantizeParams`. An error goes to stderr, with exit status 1. It ends
when its stdin does, so as not to outlive the process that started it, which is `slices.quant.quantizer`.
"""

import ctypes
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from slices.errors import RunFailed
from slices.files.child_process import work_as_child
from slices.gguf.check import check_gguf
from slices.quant.quantizer import NEXT
from slices.runtimes.llama_library import add_log_listener, last_error, load_library
from slices.runtimes.llama_runtime import LlamaRuntime

PROBE = (
    "The enzyme's Km is 3.2 µM,  E = mc².\n\n\tdef f(x):\n    return x**2  # naïve\n"
    "L'été, où 東京 🙂 <b>2 === 2</b>\u2028 <end_of_turn>"
)
_BUFFER = 2**26  # bytes of rows in memory at once; llama.cpp alone would take 8 GiB, for the same file
_TENSOR = re.compile(r"\[ *(\d+)/ *(\d+)\] (\S+) - \[.*\], type = +(\S+),")
_RESULT = re.compile(r"size = .* -> .* \((\S+)\)")


def quantize(job: Mapping[str, Any], dry_run: bool = False) -> None:
    """Quantize, or with `dry_run` print the type of every tensor."""
    library = load_library()
    params = library.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.max_buf_size = job["ftype"], job["threads"], _BUFFER
    params.pure, params.dry_run = job["pure"], dry_run
    params.tt_overrides = _tensor_types(library, job["tensor_types"])
    params.kv_overrides = _metadata(library, job["metadata"])
    weights = _load(job["imatrix"])  # ctypes keeps no hold on these arrays; this name does
    if weights is not None or job["has_imatrix"]:
        params.imatrix = _weights(library, weights or {})
    add_log_listener(_TypePrinter() if dry_run else _print_progress)
    status = library.llama_model_quantize(
        job["source"].encode(), job["target"].encode(), ctypes.byref(params)
    )
    if status:
        raise RunFailed(f"llama.cpp could not quantize (status {status}): {last_error()}")


def _tensor_types(library: ModuleType, pairs: Sequence[tuple[str, int]]) -> Any:
    """Patterns and ggml's types as llama.cpp takes them: an array that ends with an empty entry."""
    array = (library.llama_model_tensor_override * (len(pairs) + 1))()
    for entry, (pattern, number) in zip(array, pairs, strict=False):
        entry.pattern, entry.type = pattern.encode(), number
    return array


def _metadata(library: ModuleType, values: Mapping[str, str]) -> Any:
    """Metadata to add, likewise."""
    array = (library.llama_model_kv_override * (len(values) + 1))()
    for entry, (key, text) in zip(array, values.items(), strict=False):
        entry.tag = library.LLAMA_KV_OVERRIDE_TYPE_STR
        entry.key, entry.value.val_str = key.encode(), text.encode()
    return array


def _load(path: str | None) -> dict[str, Any] | None:
    if path is None:
        return None
    return {name: np.ascontiguousarray(values, np.float32) for name, values in load_file(path).items()}


def _weights(library: ModuleType, values: Mapping[str, Any]) -> Any:
    """An importance matrix, likewise; the arrays stay `values`'."""
    array = (library.llama_model_imatrix_data * (len(values) + 1))()
    for entry, (name, columns) in zip(array, values.items(), strict=False):
        entry.name, entry.size = name.encode(), len(columns)
        entry.data = columns.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return array


def verify(file: Path, folder: Path) -> None:
    """Check and load `file`, score a text with it, and compare its tokens with `folder`'s tokenizer.

    Raises:
        BadCheckpoint: it is not what `slices.gguf.check` lets pass.
        RunFailed: it does not load, its tokens differ, or a probability is not finite.
    """
    check_gguf(file)
    runtime = LlamaRuntime(file, threads=1, n_ctx=512)
    try:
        tokens = runtime.encode(PROBE)
        check_tokens(tokens[1:], folder)
        if not np.isfinite(runtime.logprobs(tokens)).all():
            raise RunFailed("the GGUF gives probabilities that are not finite")
    finally:
        runtime.close()


def verify_tokens(file: Path, folder: Path) -> None:
    """Load only the vocabulary of `file`, and compare its tokens with `folder`'s tokenizer.

    Raises:
        RunFailed: llama.cpp refuses the vocabulary, or the tokens differ.
    """
    from llama_cpp import Llama

    load_library()
    try:
        model = Llama(str(file), vocab_only=True, verbose=False)
    except ValueError:
        raise RunFailed(f"llama.cpp cannot read the vocabulary: {last_error()}") from None
    try:
        check_tokens(model.tokenize(PROBE.encode(), add_bos=False, special=False), folder)
    finally:
        model.close()


def check_tokens(tokens: Sequence[int], folder: Path) -> None:
    """Compare llama.cpp's tokens of `PROBE` with those of `folder`'s tokenizer."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    if list(tokens) != tokenizer.encode(PROBE, add_special_tokens=False).ids:
        raise RunFailed(
            f"the GGUF tokenizes text otherwise than {folder / 'tokenizer.json'}: serve it in torch"
        )


def _print_progress(line: str) -> None:
    found = _TENSOR.match(line)
    if found:
        print(found[1], found[2], flush=True)


class _TypePrinter:
    """Prints each tensor and its type, which llama.cpp logs in two parts."""

    def __init__(self) -> None:
        self._tensor: tuple[str, str] | None = None

    def __call__(self, line: str) -> None:
        found = _TENSOR.match(line)
        if found:
            self._tensor = found[3], found[4]
        elif self._tensor and line.startswith("size = "):
            name, before = self._tensor
            result = _RESULT.match(line)
            print(name, (result[1] if result else before).upper(), flush=True)
            self._tensor = None


def main(arguments: list[str]) -> None:
    """Run the command that the arguments name."""
    match arguments:
        case ["plan", *params_list]:
            for params in params_list:
                print(NEXT, flush=True)
                quantize(json.loads(params), dry_run=True)
        case ["quantize", params]:
            quantize(json.loads(params))
        case ["tokens", file, folder]:
            verify_tokens(Path(file), Path(folder))
        case ["verify", file, folder]:
            verify(Path(file), Path(folder))
        case _:
            raise RunFailed(f"expected 'plan', 'quantize', 'tokens' or 'verify', found {arguments}")


if __name__ == "__main__":
    work_as_child(main)
