"""The control of a healing: the uncut parent, healed on the same text by the same hyperparameters.

What it gains is training on the domain, which needs no slice; only what a healed slice gains beyond it is
owed to healing a cut. The rows hold the same documents in the same order and as many tokens in as many steps,
in the parent's own tokens. The hidden-state loss is left out: it compares what enters the layers behind a
cut, and would hold an uncut parent to itself; so is the fading of dropped layers, of which it has none.

The control lies in `.controls` beside the healed slice, where no catalogue of slices looks, and the healed
slice's slice.json says where.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slices import manifest
from slices.checkpoint import fingerprint, open_checkpoint
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.device import choose_device
from slices.errors import BadConfig
from slices.files.temp_files import temp_dir
from slices.heal import memory_bound
from slices.heal.heal import heal
from slices.heal.load import MemoryCallback
from slices.heal.loop import StepCallback
from slices.heal.record import NoImprovement
from slices.heal.request import HealRequest
from slices.heal.settings import HealConfig
from slices.heal.teacher import find_parent

FOLDER = ".controls"
NO_CONTROL = (
    "no control: mom heal --control heals the uncut parent alike, which tells training on the domain apart "
    "from healing the cut"
)
_LONGEST_NAME = 64  # of a slice


@dataclass(frozen=True)
class Control:
    """Where a healed slice's control is; `folder` None where healing made the parent no better.

    The row of such a control is the parent itself. `reason` says what was found.
    """

    folder: Path | None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As slice.json records it."""
        return {"folder": None if self.folder is None else str(self.folder), "reason": self.reason}


def read_control(made: manifest.Manifest) -> Control | None:
    """The control that a healed slice's manifest records, None if it has none."""
    found = (made.healing or {}).get("control")
    if found is None:
        return None
    folder = found["folder"]
    return Control(None if folder is None else Path(folder), found["reason"])


def is_control(made: manifest.Manifest) -> bool:
    """Whether a healed slice is a control of another."""
    return "control_of" in (made.healing or {})


def control_folder(healed: Path) -> Path:
    """The folder of the control of the healed slice in `healed`."""
    name = f"{healed.name[: _LONGEST_NAME - len('-control')]}-control"
    return healed.resolve().parent / FOLDER / name


def check_control(request: HealRequest) -> None:
    """Refuse a healing whose control could not be made, before the slice is healed.

    Raises:
        BadConfig: the teacher is cached, on the slice's tokens.
        RunFailed: the memory is too small for the control.
    """
    if request.teacher is not None:
        raise BadConfig("--control heals the parent against itself: expected no cached teacher (--teacher)")
    parent, _ = find_parent(request.slice)
    device = choose_device(request.device, request.config.precision, request.threads)
    if device.name == "cpu":
        memory_bound.check(memory_bound.bound(parent, parent, request.config, device.compute.itemsize))


def is_healed_by(request: HealRequest) -> bool:
    """Whether the target is the finished result of `request`: a run that was ended before its control."""
    if not (request.target / manifest.FILE).is_file():
        return False
    healing = manifest.read(request.target).healing or {}
    wanted, done = request.config.to_json(), healing.get("settings", {})
    open_values = [name for name, value in wanted.items() if value is None]  # resolved by the run
    same = all(done.get(name) == value for name, value in wanted.items() if name not in open_values)
    unchanged = healing.get("slice_fingerprint") == fingerprint(open_checkpoint(request.slice))
    return same and unchanged and healing.get("text", {}).get("sha256") == request.text.sha256


def heal_control(
    request: HealRequest,
    on_step: StepCallback = lambda progress: None,
    on_memory_bound: MemoryCallback = lambda bound: None,
) -> Control:
    """Heal the uncut parent as the slice in `request.target` was healed, and record it there.

    Resumes like `slices.heal.heal.heal`; a control that is there already is taken.

    Args:
        request: of the healed slice, which is finished.

    Raises:
        RunFailed: the memory is too small.
        SliceError: as `heal`.
    """
    target = control_folder(request.target)
    made = manifest.read(request.target)
    config = _control_config(made)
    control = _existing(target, made, config)
    if control is None:
        with temp_dir(target.parent) as scratch:
            whole = scratch / "parent"
            _cut_whole(made, whole)
            alike = replace(request, slice=whole, target=target, config=config, force=True)
            control = _heal(alike, on_step, on_memory_bound)
    if control.folder is not None:
        _add_to_healing(control.folder, {"control_of": made.name})
    _add_to_healing(request.target, {"control": control.to_json()})
    return control


def _control_config(made: manifest.Manifest) -> HealConfig:
    """The hyperparameters that a slice was healed by, without what is about the layers that it lost."""
    settings = (made.healing or {})["settings"]
    return replace(HealConfig.from_json(settings), hidden_state_weight=0.0, fade=0.0)


def _existing(target: Path, made: manifest.Manifest, config: HealConfig) -> Control | None:
    """The control of an earlier run, where it was healed like the slice of the manifest `made`."""
    if not (target / manifest.FILE).is_file():
        return None
    found = manifest.read(target)
    ours, theirs = made.healing or {}, found.healing or {}
    same = theirs.get("settings") == config.to_json() and theirs.get("heldout") == ours["heldout"]
    same_text = theirs.get("text", {}).get("sha256") == ours["text"]["sha256"]
    return Control(target) if same and same_text and found.parent == made.parent else None


def _cut_whole(made: manifest.Manifest, folder: Path) -> None:
    """The parent as a slice of all its layers and rows."""
    request = SliceRequest(
        domain=made.domain, layers="all", model=made.parent.model, output=folder, seed=made.seed
    )
    cut(request)


def _heal(request: HealRequest, on_step: StepCallback, on_memory_bound: MemoryCallback) -> Control:
    try:
        heal(request, on_step, on_memory_bound)
    except NoImprovement as error:
        return Control(None, f"healing made the parent no better, so the control is the parent: {error}")
    return Control(request.target)


def _add_to_healing(folder: Path, values: dict[str, Any]) -> None:
    """Add to what a slice's slice.json says of its healing."""
    made = manifest.read(folder)
    manifest.write(folder, made.model_copy(update={"healing": {**(made.healing or {}), **values}}))
