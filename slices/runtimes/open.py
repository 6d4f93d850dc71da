"""Open a slice to run it: a GGUF file in llama.cpp, a bf16 checkpoint in torch, each checked first."""

from os import cpu_count
from pathlib import Path

from slices.architecture.anatomy import match_tensors, read_anatomy
from slices.checkpoint import open_checkpoint
from slices.errors import NotFound
from slices.gguf.check import check_gguf
from slices.runtime import Batcher, Capacity, Runtime
from slices.runtimes.llama_batcher import LlamaBatcher
from slices.runtimes.llama_model import N_CTX_MULTIPLE
from slices.runtimes.llama_runtime import LlamaRuntime
from slices.runtimes.load_test import ensure_load_tested
from slices.runtimes.single_sequence import SingleSequenceBatcher
from slices.runtimes.torch_runtime import TorchRuntime


def open_runtime(
    folder: Path,
    file: Path | None = None,
    threads: int | None = None,
    max_model_len: int = 4096,
    device: str = "cpu",
) -> Runtime:
    """Load the GGUF `file` (absolute, or relative to `folder`), or without one the checkpoint in `folder`.

    A GGUF is load-tested in a child process before its first use here, which takes about a second and as
    long as reading it does.

    Args:
        threads: processor threads; by default every core.
        max_model_len: most tokens of a prompt and its answer together, rounded up to a multiple of 256.
        device: where a checkpoint runs, as torch says it; a GGUF runs on the processor.

    Raises:
        NotFound: there is no such file, or `folder` holds no weights.
        BadCheckpoint: the file is cut short, its header lies, or llama.cpp would misread it; it is named.
        MissingExtra: the runtime is not installed.
        RunFailed: the runtime refuses it, or failed its load test.
    """
    if file is not None:
        return LlamaRuntime(_load_tested(folder / file, threads, max_model_len), threads, max_model_len)
    checkpoint = open_checkpoint(folder)
    if not checkpoint.entries:
        raise NotFound(f"{folder} has no model.safetensors to run; give one of its GGUF files")
    match_tensors(checkpoint, read_anatomy(checkpoint.config))
    return TorchRuntime(folder=folder, threads=threads, max_model_len=max_model_len, device=device)


def open_batcher(folder: Path, file: Path | None, capacity: Capacity) -> Batcher:
    """The same for serving: a GGUF answers several prompts at a time, a checkpoint in torch one.

    Raises:
        SliceError: as `open_runtime`.
    """
    if file is None:
        return SingleSequenceBatcher(open_runtime(folder, None, capacity.threads, capacity.max_model_len))
    return LlamaBatcher(_load_tested(folder / file, capacity.threads, capacity.max_model_len), capacity)


def _load_tested(path: Path, threads: int | None, n_ctx: int) -> Path:
    """`path`, checked and load-tested."""
    rounded = -(-n_ctx // N_CTX_MULTIPLE) * N_CTX_MULTIPLE
    ensure_load_tested(path, check_gguf(path), threads or cpu_count() or 1, rounded)
    return path
