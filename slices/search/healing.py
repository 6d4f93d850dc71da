"""Healing of a search's candidates, since healing changes their order: a cut is healed, then quantized.

The healed slice of the best candidate so far is kept, and becomes the final one. Where it is missing, since
the search was killed before it was kept, the cut is healed again: the same text, seed and hyperparameters.
"""

import shutil
from pathlib import Path

from slices import manifest
from slices.errors import NotFound
from slices.files.atomic import staged
from slices.files.disk_space import map_full_disk_error
from slices.heal.heal import heal
from slices.heal.loop import TrainingProgress
from slices.heal.request import HealRequest
from slices.heal.settings import HealConfig
from slices.progress import Progress
from slices.search.candidates import Structure
from slices.search.request import SearchRequest


def heal_cut(
    request: SearchRequest, config: HealConfig, folder: Path, scratch: Path, progress: Progress
) -> Path:
    """Heal the slice in `folder` under the final slice's name; returns the healed slice's folder.

    Raises:
        NoImprovement: no weights were better.
        RunFailed: the memory is too small.
        SliceError: as `slices.heal.heal.heal`.
    """
    target = _healed_folder(request, scratch)

    def on_step(training: TrainingProgress) -> None:
        progress(f"heal {target.name}", training.step, training.total_steps)

    order = HealRequest(
        slice=folder, target=target, text=request.text, config=config, threads=request.threads, force=True
    )
    return heal(order, on_step).path


def keep_healed(request: SearchRequest, scratch: Path, kept: Path) -> None:
    """Move the slice that `heal_cut` healed last to `kept`, in place of what is there."""
    shutil.rmtree(kept, ignore_errors=True)
    _healed_folder(request, scratch).rename(kept)


def is_healed(folder: Path, structure: Structure) -> bool:
    """Whether `folder` is a healed slice of that structure."""
    try:
        made = manifest.read(folder)
    except NotFound:
        return False
    cut = Structure(*(made.recipe[name] for name in ("layers", "vocab", "ffn")))
    return made.healing is not None and cut == structure


def copy_healed_slice(folder: Path, target: Path, force: bool) -> None:
    """Copy a healed slice's folder to `target` in one step. The cut that was healed is in no folder.

    Raises:
        Exists: `target` is there and `force` is false.
    """
    made = manifest.read(folder)
    healing = {**(made.healing or {}), "slice_folder": None}
    with map_full_disk_error(target), staged(target, force) as partial:
        shutil.copytree(folder, partial)
        manifest.write(partial, made.model_copy(update={"healing": healing}))


def _healed_folder(request: SearchRequest, scratch: Path) -> Path:
    return scratch / "healed" / request.cut.slice_name
