"""Healed slices against their controls, paired by document; a note where there is no control."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slices import manifest
from slices.report.config import EvalConfig
from slices.report.controls import ControlRow, compare_to_controls, find_controls
from slices.report.eval_run import Opener
from slices.report.evaluate import EvalReport, evaluate
from slices.report.evaluated_model import EvaluatedModel
from slices.runtime import Runtime
from tests.slices.gguf_fixtures import write_manifest
from tests.slices.report_fakes import Biased, fake

TEXTS = {"law": ["abc " * count + "x" * count for count in range(3, 15)]}


def slice_in(folder: Path, healing: dict[str, Any] | None) -> Path:
    folder.mkdir(parents=True)
    write_manifest(folder, folder.name)
    made = manifest.read(folder)
    parent = made.parent.model_copy(update={"model": str(folder.parent)})
    manifest.write(folder, made.model_copy(update={"healing": healing, "parent": parent}))
    return folder


def test_the_control_of_each_healed_slice_is_found(tmp_path: Path) -> None:
    control = slice_in(tmp_path / ".controls" / "a-control", {"control_of": "a"})
    recorded = {"folder": str(control), "reason": None}
    folders = [
        slice_in(tmp_path / "a", {"control": recorded}),
        slice_in(tmp_path / "none", {}),
        slice_in(tmp_path / "gone", {"control": {"folder": str(tmp_path / "away"), "reason": None}}),
        slice_in(tmp_path / "parent", {"control": {"folder": None, "reason": "no better"}}),
        slice_in(tmp_path / "raw", None),
        control,
    ]
    found = find_controls(folders)
    assert list(found) == ["a", "none", "gone", "parent"]
    assert found["a"].model == EvaluatedModel("a-control", control)
    assert found["none"].model is None
    assert (found["none"].reason or "").startswith("no control: mom heal --control")
    assert found["gone"].model is None and "away is gone" in (found["gone"].reason or "")
    assert found["parent"] == ControlRow(EvaluatedModel(manifest.PARENT, tmp_path), "no better")


def test_a_control_belongs_to_no_domain(tmp_path: Path) -> None:
    """So that it is no rival of its slice on its own domain, and gets no verdict at equal size."""
    control = slice_in(tmp_path / "a-control", {"control_of": "a"})
    assert EvaluatedModel("a-control", control).domain is None
    assert EvaluatedModel("b", slice_in(tmp_path / "b", {})).domain == "demo"


@pytest.fixture
def report(tmp_path: Path) -> EvalReport:
    """A healed slice that needs 1.9 bits a byte, its control 2.0, a slice without control."""
    bits = {"healed": 1.9, "healed-control": 2.0, "other": 3.0}
    models = {name: fake(tmp_path, name) for name in bits}

    def opener(model: EvaluatedModel, config: EvalConfig) -> Runtime:
        return Biased(bits=bits[model.name])

    typed: Opener = opener
    return evaluate(list(models.values()), TEXTS, EvalConfig(), opener=typed)


def test_slice_minus_control_by_document(report: EvalReport, tmp_path: Path) -> None:
    control = report.models["healed-control"].model
    rows = {"healed": ControlRow(control), "other": ControlRow(None, "no control")}
    found = compare_to_controls(report, rows)
    difference = found["healed"].bits_per_byte["law"]
    assert found["healed"].control == "healed-control"
    assert difference.value == pytest.approx(-0.1)
    assert difference.significant and difference.n == len(TEXTS["law"])
    assert (found["other"].control, found["other"].reason) == (None, "no control")
    assert found["other"].bits_per_byte == {}
    assert found["healed"].to_json()["bits_per_byte"]["law"]["value"] == difference.value
    ours, theirs = (
        np.array(report.models[name].domains["law"].bits) for name in ("healed", "healed-control")
    )
    assert (ours < theirs).all()
