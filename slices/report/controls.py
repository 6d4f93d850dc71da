"""Controls of healed slices: rows of their own, and each healed slice minus its control, paired by document.

A control is the uncut parent healed alike (`slices.heal.control`): what a healed slice has beyond it is not
training on the domain. A slice that was healed without one is told so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slices import manifest
from slices.heal.control import NO_CONTROL, is_control, read_control
from slices.measure.paired import Difference, corrected, paired_difference
from slices.model_ref import locate
from slices.report.evaluate import EvalReport
from slices.report.evaluated_model import EvaluatedModel


@dataclass(frozen=True)
class ControlRow:
    """The row that a healed slice is compared with, None where there is none; `reason` says what it is."""

    model: EvaluatedModel | None
    reason: str | None = None


@dataclass(frozen=True)
class ControlComparison:
    """A healed slice against its control.

    `bits_per_byte`: slice minus control by domain, with p-values corrected by Holm's method over all healed
    slices and domains.
    """

    control: str | None
    reason: str | None
    bits_per_byte: Mapping[str, Difference]

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def find_controls(folders: Sequence[Path]) -> dict[str, ControlRow]:
    """The control of every healed slice in `folders`, by the slice's name; controls have none themselves."""
    found = {}
    for folder in folders:
        if not (folder / manifest.FILE).is_file():
            continue
        made = manifest.read(folder)
        if made.healing is not None and not is_control(made):
            found[made.name] = _control_row(made)
    return found


def _control_row(made: manifest.Manifest) -> ControlRow:
    control = read_control(made)
    if control is None:
        return ControlRow(None, NO_CONTROL)
    if control.folder is None:
        return ControlRow(EvaluatedModel(manifest.PARENT, locate(made.parent.model)), control.reason)
    if not (control.folder / manifest.FILE).is_file():
        return ControlRow(None, f"its control {control.folder} is gone: {NO_CONTROL}")
    return ControlRow(EvaluatedModel(manifest.read(control.folder).name, control.folder))


def compare_to_controls(
    report: EvalReport, controls: Mapping[str, ControlRow]
) -> dict[str, ControlComparison]:
    """Every healed slice minus its control, by the slice's name."""
    differences: dict[tuple[str, str], Difference] = {}
    for name, row in controls.items():
        if row.model is None or name not in report.models:
            continue
        ours, theirs = report.models[name].domains, report.models[row.model.name].domains
        for domain, found in ours.items():
            differences[name, domain] = paired_difference(
                np.array(found.bits),
                np.array(theirs[domain].bits),
                np.array(found.bytes),
                report.config.seed,
            )
    known = corrected(differences)
    return {
        name: ControlComparison(
            control=None if row.model is None else row.model.name,
            reason=row.reason,
            bits_per_byte={domain: each for (own, domain), each in known.items() if own == name},
        )
        for name, row in controls.items()
    }
