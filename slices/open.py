"""Open a slice to run it: a GGUF file in llama.cpp, a bf16 checkpoint in torch, either only after a check."""

from pathlib import Path

from slices.anatomy import match, read_anatomy
from slices.checkpoint import open_checkpoint
from slices.errors import NotFound
from slices.gguf_header import read_gguf_header
from slices.llama_runtime import LlamaRuntime
from slices.runtime import Runtime
from slices.torch_runtime import TorchRuntime


def open_runtime(
    folder: Path, file: Path | None = None, threads: int | None = None, context: int = 4096
) -> Runtime:
    """Load the GGUF `file` (absolute, or relative to `folder`), or without one the checkpoint in `folder`.

    Args:
        threads: processor threads; by default every core.
        context: most tokens of a prompt and its answer together.

    Raises:
        NotFound: there is no such file, or `folder` holds no weights.
        BadCheckpoint: the file is cut short, or its headers lie; it is named.
        MissingExtra: the runtime is not installed.
        RunFailed: the runtime refuses it.
    """
    if file is not None:
        path = folder / file
        read_gguf_header(path)
        return LlamaRuntime(path, threads, context)
    checkpoint = open_checkpoint(str(folder))
    if not checkpoint.entries:
        raise NotFound(f"{folder} has no model.safetensors to run; give one of its GGUF files")
    match(checkpoint, read_anatomy(checkpoint.config))
    return TorchRuntime(folder, threads, context)
