"""The torch device and compute dtype: a GPU where there is one; bf16 wherever it is native, else float32."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from typing import Any

from slices.errors import BadConfig
from slices.runtimes.torch_runtime import load_libraries, load_model
from slices.slice_classes import register


@dataclass(frozen=True)
class Device:
    """A torch device; `compute` is the dtype of matrix products, `threads` the CPU threads."""

    name: str
    compute: Any
    threads: int

    def autocast(self) -> AbstractContextManager[Any]:
        """Autocast to `compute`; nothing where that is float32."""
        import torch

        if self.compute == torch.float32:
            return nullcontext()
        return torch.autocast(torch.device(self.name).type, self.compute)

    def load(self, folder: Path, dtype: Any) -> Any:
        """Load the checkpoint in `folder` in `dtype` onto this device.

        Raises:
            BadCheckpoint: a file is damaged, or weights are missing from it.
        """
        return load_model(folder, dtype).to(self.name)


def choose_device(name: str = "auto", precision: str = "auto", threads: int | None = None) -> Device:
    """The device to run on; sets the process's threads.

    Raises:
        MissingExtra: torch or transformers is not installed.
        BadConfig: there is no such device.
    """
    torch, _ = load_libraries()
    register()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if torch.device(name).type == "cuda" and not torch.cuda.is_available():
        raise BadConfig(f"--device {name}: torch sees no GPU here; expected cpu")
    torch.set_num_threads(threads or cpu_count() or 1)
    return Device(name, _compute(torch, name, precision), torch.get_num_threads())


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 matrices natively (AVX512-BF16 or AMX)."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _compute(torch: Any, name: str, precision: str) -> Any:
    if precision != "auto":
        return getattr(torch, precision)
    return torch.bfloat16 if name != "cpu" or cpu_has_bf16() else torch.float32
