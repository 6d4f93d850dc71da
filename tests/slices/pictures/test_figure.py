"""Plots: the format by the suffix, the same bytes each time, nothing half-written."""

import sys
from pathlib import Path

import pytest

from slices.errors import BadConfig, MissingExtra
from slices.estimate import Estimate
from slices.heal.curve import EvalPoint
from slices.pictures.figure import new_figure, save_figure
from slices.pictures.healing import plot_healing_curves

CURVE = [
    EvalPoint(
        step=step,
        tokens=step * 1024,
        kl=Estimate(8 / (step + 1), 0.1),
        bits_per_byte=Estimate(2 / (step + 1), 0.02),
        nll=3.0,
        train_loss=None,
    )
    for step in range(3)
]


@pytest.mark.parametrize(("suffix", "begins"), [(".svg", b"<?xml"), (".png", b"\x89PNG")])
def test_a_curve_is_plotted_in_the_format_of_its_suffix(suffix: str, begins: bytes, tmp_path: Path) -> None:
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    plot_healing_curves({"law": CURVE}, first)
    plot_healing_curves({"law": CURVE}, second)
    assert first.read_bytes().startswith(begins)
    assert first.read_bytes() == second.read_bytes()
    if suffix == ".svg":
        assert all(text in first.read_text() for text in ("law", "KL to the parent", "bits per byte"))


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"a\.pdf: expected a name that ends in \.svg or \.png"):
        save_figure(new_figure(1, 1), tmp_path / "a.pdf")
    assert not list(tmp_path.glob("*"))


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"\[plot\]"):
        new_figure(1, 1)
