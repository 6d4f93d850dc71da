"""The process that tries a GGUF out before another one loads it, since llama.cpp may abort on it.

    python -m slices.runtimes.proof_child FILE THREADS CONTEXT

Reads every weight, loads the file as `slices.runtimes.open` would, cuts text that holds every byte, runs a
few tokens. What went wrong goes to stderr, with exit status 1. Started by `slices.runtimes.proof`, and ends
with it.
"""

import os
from pathlib import Path

import numpy as np

from slices.errors import RunFailed
from slices.files.child_process import work_as_child
from slices.runtime import Sampling
from slices.runtimes.llama_library import last_complaint, load_library
from slices.runtimes.llama_runtime import LlamaRuntime
from slices.system_memory import available_memory

_TEXT = "The enzyme's Km is 3.2 µM, E = mc²; def f(x): return x**2\n\n  # L'été, où 東京 🙂 2 === 2"
_LEADING = (*range(0x80, 0x800, 0x40), *range(0x800, 0xD800, 0x1000), *range(0x10000, 0x110000, 0x40000))
_BYTES = "".join(map(chr, [*range(1, 0x100), *_LEADING]))  # every byte that UTF-8 can hold, but NUL
_MOST = 32  # tokens to run


def try_out(path: Path, threads: int, context: int) -> None:
    """Load the GGUF `path` and run it a little.

    Raises:
        RunFailed: a weight is no number, or llama.cpp refuses it, or what it answers is no number.
    """
    read_weights(path)
    runtime = LlamaRuntime(path, threads, context)
    runtime.encode(_BYTES)
    tokens = runtime.encode(_TEXT)[:_MOST]
    if len(tokens) < 2:
        raise RunFailed(f"{path} cuts {len(_TEXT)} characters of text to {len(tokens)} tokens")
    for chunk in runtime.distributions(tokens):
        if not np.isfinite(chunk).all():
            raise RunFailed(f"{path} gives probabilities that are no numbers")
    list(runtime.generate(_TEXT, Sampling(max_tokens=2, temperature=0)))
    runtime.close()


def read_weights(path: Path) -> None:
    """Have llama.cpp look at every block of every tensor for what is no number.

    Raises:
        RunFailed: there is one, or it cannot load the file.
    """
    library = load_library()
    params = library.llama_model_default_params()
    params.n_gpu_layers, params.check_tensors, params.use_extra_bufts = 0, True, False
    model = library.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise RunFailed(f"llama.cpp cannot load {path}: {last_complaint()}")
    library.llama_model_free(model)


def hold_back() -> None:
    """Take no more memory than there is, be the first to go if it runs out, and leave no core file."""
    try:
        import resource
    except ImportError:  # Windows
        return
    free = available_memory() or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_DATA, free)):
        soft, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (min([most, *(each for each in (soft, hard) if each >= 0)]), hard))
    first = Path("/proc/self/oom_score_adj")
    if first.exists():
        first.write_text("1000")


def prove(arguments: list[str]) -> None:
    """Try out the file that the arguments name, for its threads and context."""
    hold_back()
    path, threads, context = arguments
    try_out(Path(path), int(threads), int(context))


if __name__ == "__main__":
    work_as_child(prove)
