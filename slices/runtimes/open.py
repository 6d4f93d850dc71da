"""Open a slice to run it: a GGUF file in llama.cpp, a bf16 checkpoint in torch, either only after a check."""

from os import cpu_count
from pathlib import Path

from slices.architecture.anatomy import match, read_anatomy
from slices.checkpoint import open_checkpoint
from slices.errors import NotFound
from slices.gguf.check import check_gguf
from slices.runtime import Batcher, Capacity, Runtime
from slices.runtimes.llama_batcher import LlamaBatcher
from slices.runtimes.llama_model import CONTEXT_STEP
from slices.runtimes.llama_runtime import LlamaRuntime
from slices.runtimes.one_by_one import OneByOne
from slices.runtimes.proof import ensure_proven
from slices.runtimes.torch_runtime import TorchRuntime


def open_runtime(
    folder: Path,
    file: Path | None = None,
    threads: int | None = None,
    context: int = 4096,
    device: str = "cpu",
) -> Runtime:
    """Load the GGUF `file` (absolute, or relative to `folder`), or without one the checkpoint in `folder`.

    A GGUF that has not run here yet is first tried out in a child process, which takes about a second
    and as long as reading it does.

    Args:
        threads: processor threads; by default every core.
        context: most tokens of a prompt and its answer together, rounded up to a multiple of 256.
        device: where a checkpoint runs, as torch says it; a GGUF runs on the processor.

    Raises:
        NotFound: there is no such file, or `folder` holds no weights.
        BadCheckpoint: the file is cut short, its header lies, or llama.cpp would misread it; it is named.
        MissingExtra: the runtime is not installed.
        RunFailed: the runtime refuses it, or died of it when it was tried out.
    """
    if file is not None:
        return LlamaRuntime(_proven(folder / file, threads, context), threads, context)
    checkpoint = open_checkpoint(folder)
    if not checkpoint.entries:
        raise NotFound(f"{folder} has no model.safetensors to run; give one of its GGUF files")
    match(checkpoint, read_anatomy(checkpoint.config))
    return TorchRuntime(folder, threads, context, device=device)


def open_batcher(folder: Path, file: Path | None, capacity: Capacity) -> Batcher:
    """The same to serve it: a GGUF writes several answers at a time, a checkpoint in torch one.

    Raises:
        SliceError: as `open_runtime`.
    """
    if file is None:
        return OneByOne(open_runtime(folder, None, capacity.threads, capacity.context))
    return LlamaBatcher(_proven(folder / file, capacity.threads, capacity.context), capacity)


def _proven(path: Path, threads: int | None, context: int) -> Path:
    """`path`, once it was checked and tried out."""
    rounded = -(-context // CONTEXT_STEP) * CONTEXT_STEP
    ensure_proven(path, check_gguf(path), threads or cpu_count() or 1, rounded)
    return path
