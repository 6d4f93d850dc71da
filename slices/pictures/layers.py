"""The picture of layer scores: what each layer changes, and what it costs to do without it."""

from collections.abc import Sequence
from pathlib import Path

from slices.families.table import FULL
from slices.pictures.figure import new_figure, save_figure
from slices.scores.layers import LayerScore

_COLOURS = {True: "tab:orange", False: "tab:blue"}


def draw_layers(scores: Sequence[LayerScore], types: Sequence[str], title: str, path: Path) -> None:
    """Draw bars by layer, those of full attention in another colour; `types` are the layers' attention types.

    Raises:
        MissingExtra: matplotlib is not installed.
        BadConfig: the suffix of `path` is neither .svg nor .png.
    """
    figure = new_figure(9, 5)
    above, below = figure.subplots(2, 1, sharex=True)
    places = [score.layer for score in scores]
    colours = [_COLOURS[types[place] == FULL] for place in places]
    above.bar(places, [score.influence for score in scores], color=colours)
    above.set_ylabel("block influence")
    above.set_title(f"{title} (orange: full attention)")
    costs, errors = [score.kl.value for score in scores], [score.kl.stderr for score in scores]
    below.bar(places, costs, yerr=errors, color=colours)
    below.set_yscale("log")
    below.set_ylabel("KL without it, nats a token")
    below.set_xlabel("layer")
    save_figure(figure, path)
