"""The child process of a load test: loads a GGUF and runs it, where llama.cpp may abort.

    python -m slices.runtimes.load_test_child FILE THREADS N_CTX

Checks every weight, loads the file as `slices.runtimes.open` would, tokenizes text that holds every byte,
runs a few tokens. An error goes to stderr, with exit status 1. Started by `slices.runtimes.load_test`,
and ends with it.
"""

import os
from pathlib import Path

import numpy as np

from slices.errors import RunFailed
from slices.files.child_process import work_as_child
from slices.runtime import Sampling
from slices.runtimes.llama_library import last_error, load_library
from slices.runtimes.llama_runtime import LlamaRuntime
from slices.system_memory import available_memory

_TEXT = "The enzyme's Km is 3.2 µM, E = mc²; def f(x): return x**2\n\n  # L'été, où 東京 🙂 2 === 2"
_LEADING = (*range(0x80, 0x800, 0x40), *range(0x800, 0xD800, 0x1000), *range(0x10000, 0x110000, 0x40000))
_BYTES = "".join(map(chr, [*range(1, 0x100), *_LEADING]))  # every byte that UTF-8 can hold, but NUL
_MAX_TOKENS = 32  # to run


def smoke_test(path: Path, threads: int, n_ctx: int) -> None:
    """Load the GGUF `path`, score a text and generate two tokens.

    Raises:
        RunFailed: llama.cpp refuses it, or a weight or a probability is not finite.
    """
    check_weights(path)
    runtime = LlamaRuntime(path, threads, n_ctx)
    runtime.encode(_BYTES)
    tokens = runtime.encode(_TEXT)[:_MAX_TOKENS]
    if len(tokens) < 2:
        raise RunFailed(f"{path} tokenizes {len(_TEXT)} characters of text to {len(tokens)} tokens")
    for chunk in runtime.distributions(tokens):
        if not np.isfinite(chunk).all():
            raise RunFailed(f"{path} gives probabilities that are not finite")
    list(runtime.generate(_TEXT, Sampling(max_tokens=2, temperature=0)))
    runtime.close()


def check_weights(path: Path) -> None:
    """Have llama.cpp check every block of every tensor for NaN and infinity (`check_tensors`).

    Raises:
        RunFailed: there is one, or llama.cpp cannot load the file.
    """
    library = load_library()
    params = library.llama_model_default_params()
    params.n_gpu_layers, params.check_tensors, params.use_extra_bufts = 0, True, False
    model = library.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise RunFailed(f"llama.cpp cannot load {path}: {last_error()}")
    library.llama_model_free(model)


def limit_resources() -> None:
    """Limit this process to the memory available, have the OOM killer take it first, write no core file."""
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


def main(arguments: list[str]) -> None:
    """Run the load test that the arguments describe."""
    limit_resources()
    path, threads, n_ctx = arguments
    smoke_test(Path(path), int(threads), int(n_ctx))


if __name__ == "__main__":
    work_as_child(main)
