"""A figure to draw on and the file it becomes. Knows nothing of what is drawn; keeps no global state."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slices.errors import BadConfig, MissingExtra
from slices.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png")
_SVG: dict[Any, Any] = {"svg.hashsalt": "mom", "svg.fonttype": "none"}  # text as text, ids the same each time


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of that size in inches.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "plot") from None
    return Figure(figsize=(width, height), layout="constrained")


def check_picture(path: Path) -> Path:
    """Return `path` if a picture can be written to it; called before the work, not after.

    Raises:
        BadConfig: its suffix is neither .svg nor .png.
    """
    if path.suffix not in SUFFIXES:
        raise BadConfig(f"the picture {path}: expected a name that ends in {' or '.join(SUFFIXES)}")
    return path


def save_figure(figure: "Figure", path: Path) -> None:
    """Write the figure in the format that the suffix of `path` says, in one step; the same bytes each time.

    Raises:
        BadConfig: the suffix is neither .svg nor .png.
    """
    import matplotlib as mpl

    kind = check_picture(path).suffix[1:]
    metadata = {"Date": None} if kind == "svg" else {}
    with mpl.rc_context(_SVG), atomic.staged(path, force=True) as partial:
        figure.savefig(partial, format=kind, dpi=150, metadata=metadata)


def as_svg(figure: "Figure") -> str:
    """The figure as an SVG element, the same each time."""
    import matplotlib as mpl

    with mpl.rc_context(_SVG):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
