"""What llama.cpp itself says it would allocate for a GGUF: it is asked, and allocates nothing.

The counterpart of `slices.runtimes.memory_estimate`, which computes. Reads no weights, so a file of holes
will do. Check the file first (`slices.gguf.header`), or call this in a process of its own: llama.cpp may end
it.
"""

import re
from collections import deque
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from slices.errors import RunFailed
from slices.runtimes.llama_library import last_complaint, load_library, watch

_MIB = 2**20
_NO_MAPPING, _NOT_LAZY = 0, 0  # llama.cpp's LLAMA_LOAD_MODE_NONE and LLAMA_LAZY_MODE_OFF
_CACHE = re.compile(r"llama_kv_cache: size = *([\d.]+) MiB")
_COMPUTE = re.compile(r"compute buffer size = *([\d.]+) MiB")


@dataclass(frozen=True)
class Reported:
    """Bytes, to the hundredth of a MiB that llama.cpp prints."""

    kv_cache: float
    compute: float


def dry_load(
    path: Path, context: int = 4096, batch: int = 512, outputs: int = 1, swa_full: bool = False
) -> Reported:
    """Ask llama.cpp; the arguments are those of `slices.runtimes.memory_estimate.estimate`.

    Raises:
        MissingExtra: llama-cpp-python is not installed.
        RunFailed: llama.cpp refuses the file.
    """
    library = load_library()
    settings: Any = library.llama_model_default_params()
    settings.n_gpu_layers, settings.no_alloc = 0, True
    settings.load_mode, settings.lazy_mode = _NO_MAPPING, _NOT_LAZY
    model = library.llama_model_load_from_file(str(path).encode(), settings)
    if not model:
        raise RunFailed(f"llama.cpp cannot load {path}: {last_complaint()}")
    try:
        return _ask(library, model, context, batch, outputs, swa_full)
    finally:
        library.llama_model_free(model)


def _ask(library: Any, model: Any, context: int, batch: int, outputs: int, swa_full: bool) -> Reported:
    settings: Any = library.llama_context_default_params()
    settings.n_ctx, settings.swa_full = context, swa_full
    settings.n_batch = settings.n_ubatch = batch
    settings.n_outputs_max = settings.n_outputs_max_per_seq = outputs
    _log().clear()
    running = library.llama_init_from_model(model, settings)
    if not running:
        raise RunFailed(f"llama.cpp cannot run it at a context of {context}: {last_complaint()}")
    try:
        return Reported(_sum(_CACHE), _sum(_COMPUTE))
    finally:
        library.llama_free(running)


def _sum(pattern: re.Pattern[str]) -> float:
    """All sizes that the log names so, in bytes."""
    return _MIB * sum(float(found[1]) for line in _log() if (found := pattern.search(line)))


@cache
def _log() -> deque[str]:
    """What llama.cpp logged of late."""
    lines: deque[str] = deque(maxlen=1000)
    watch(lines.append)
    return lines
