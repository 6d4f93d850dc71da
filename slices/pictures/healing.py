"""Healing curves: KL to the parent and bits per byte of held-out text, by training tokens."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from slices.heal.curve import EvalPoint
from slices.pictures.figure import new_figure, save_figure


def plot_healing_curves(curves: Mapping[str, Sequence[EvalPoint]], path: Path) -> None:
    """Plot one line per run, with standard errors, to a .svg or .png file.

    Raises:
        MissingExtra: matplotlib is not installed.
        BadConfig: the suffix is neither .svg nor .png.
    """
    figure = new_figure(8, 3.5)
    left, right = figure.subplots(1, 2)
    for name, curve in curves.items():
        tokens = [point.tokens / 1000 for point in curve]
        kl, bits = [point.kl for point in curve], [point.bits_per_byte for point in curve]
        left.errorbar(tokens, [e.value for e in kl], [e.stderr for e in kl], marker=".", label=name)
        right.errorbar(tokens, [e.value for e in bits], [e.stderr for e in bits], marker=".", label=name)
    for axes, title in ((left, "KL to the parent, nats/token"), (right, "bits per byte")):
        axes.set_title(title)
        axes.set_xlabel("thousand training tokens")
        axes.set_yscale("log")
        axes.grid(visible=True, which="both", alpha=0.3)
    left.legend()
    save_figure(figure, path)
