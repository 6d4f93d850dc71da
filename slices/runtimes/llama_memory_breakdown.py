"""llama.cpp's own memory breakdown of a GGUF: what it would allocate, without allocating it.

The counterpart of `slices.runtimes.memory_estimate`, which computes. Reads no weights, so a sparse file will
do. Check the file first (`slices.gguf.header`), or call this in a process of its own: llama.cpp may end it.
"""

import re
from collections import deque
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from slices.errors import RunFailed
from slices.runtimes.llama_library import add_log_listener, last_error, load_library

_MIB = 2**20
_LOAD_MODE_NONE, _LAZY_MODE_OFF = 0, 0  # llama.cpp's numbers
_KV_CACHE = re.compile(r"llama_kv_cache: size = *([\d.]+) MiB")
_COMPUTE = re.compile(r"compute buffer size = *([\d.]+) MiB")


@dataclass(frozen=True)
class MemoryBreakdown:
    """Bytes, to the hundredth of a MiB that llama.cpp prints."""

    kv_cache: float
    compute: float


def memory_breakdown(
    path: Path, n_ctx: int = 4096, n_ubatch: int = 512, n_outputs: int = 1, swa_full: bool = False
) -> MemoryBreakdown:
    """What llama.cpp reports for `path`; arguments as in `slices.runtimes.memory_estimate.estimate_memory`.

    Raises:
        MissingExtra: llama-cpp-python is not installed.
        RunFailed: llama.cpp refuses the file.
    """
    library = load_library()
    params: Any = library.llama_model_default_params()
    params.n_gpu_layers, params.no_alloc = 0, True
    params.load_mode, params.lazy_mode = _LOAD_MODE_NONE, _LAZY_MODE_OFF
    model = library.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise RunFailed(f"llama.cpp cannot load {path}: {last_error()}")
    try:
        return _of_context(library, model, n_ctx, n_ubatch, n_outputs, swa_full)
    finally:
        library.llama_model_free(model)


def _of_context(
    library: Any, model: Any, n_ctx: int, n_ubatch: int, n_outputs: int, swa_full: bool
) -> MemoryBreakdown:
    params: Any = library.llama_context_default_params()
    params.n_ctx, params.swa_full = n_ctx, swa_full
    params.n_batch = params.n_ubatch = n_ubatch
    params.n_outputs_max = params.n_outputs_max_per_seq = n_outputs
    _log().clear()
    context = library.llama_init_from_model(model, params)
    if not context:
        raise RunFailed(f"llama.cpp cannot run it at a context of {n_ctx}: {last_error()}")
    try:
        return MemoryBreakdown(_total(_KV_CACHE), _total(_COMPUTE))
    finally:
        library.llama_free(context)


def _total(pattern: re.Pattern[str]) -> float:
    """The sum of the sizes in the log that match, in bytes."""
    return _MIB * sum(float(match[1]) for line in _log() if (match := pattern.search(line)))


@cache
def _log() -> deque[str]:
    """llama.cpp's last 1000 log lines."""
    lines: deque[str] = deque(maxlen=1000)
    add_log_listener(lines.append)
    return lines
