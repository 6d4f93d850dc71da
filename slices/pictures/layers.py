"""Layer scores as bars: block influence, and the KL of removing the layer."""

from collections.abc import Sequence
from pathlib import Path

from slices.families.table import FULL
from slices.pictures.figure import new_figure, save_figure
from slices.scores.layers import LayerScore

_COLOURS = {True: "tab:orange", False: "tab:blue"}


def plot_layer_scores(scores: Sequence[LayerScore], types: Sequence[str], title: str, path: Path) -> None:
    """Plot bars by layer to a .svg or .png file, full-attention layers in another colour.

    Args:
        types: the attention type of each layer.

    Raises:
        MissingExtra: matplotlib is not installed.
        BadConfig: the suffix of `path` is neither .svg nor .png.
    """
    figure = new_figure(9, 5)
    above, below = figure.subplots(2, 1, sharex=True)
    layers = [score.layer for score in scores]
    colours = [_COLOURS[types[layer] == FULL] for layer in layers]
    above.bar(layers, [score.influence for score in scores], color=colours)
    above.set_ylabel("block influence")
    above.set_title(f"{title} (orange: full attention)")
    kls, errors = [score.kl.value for score in scores], [score.kl.stderr for score in scores]
    below.bar(layers, kls, yerr=errors, color=colours)
    below.set_yscale("log")
    below.set_ylabel("KL when removed, nats/token")
    below.set_xlabel("layer")
    save_figure(figure, path)
