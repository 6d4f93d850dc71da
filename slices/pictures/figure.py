"""Matplotlib figures without global state, and how they are saved: deterministic SVG or PNG."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slices.errors import BadConfig, MissingExtra
from slices.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png")
_SVG: dict[Any, Any] = {"svg.hashsalt": "mom", "svg.fonttype": "none"}  # deterministic ids, text as text


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure, `width` by `height` inches.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "plot") from None
    return Figure(figsize=(width, height), layout="constrained")


def require_matplotlib() -> None:
    """Fail before any work where plots cannot be drawn.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    new_figure(1, 1)


def check_plot_path(path: Path) -> Path:
    """Return `path` if it names a plot; called before any work.

    Raises:
        BadConfig: its suffix is neither .svg nor .png.
    """
    if path.suffix not in SUFFIXES:
        raise BadConfig(f"the plot {path}: expected a name that ends in {' or '.join(SUFFIXES)}")
    return path


def save_figure(figure: "Figure", path: Path) -> None:
    """Save the figure atomically in the format of the suffix of `path`; the same figure gives the same bytes.

    Raises:
        BadConfig: the suffix is neither .svg nor .png.
    """
    import matplotlib as mpl

    file_format = check_plot_path(path).suffix[1:]
    metadata = {"Date": None} if file_format == "svg" else {}
    with mpl.rc_context(_SVG), atomic.staged(path, force=True) as partial:
        figure.savefig(partial, format=file_format, dpi=150, metadata=metadata)


def as_svg(figure: "Figure") -> str:
    """The figure as an SVG element; the same figure gives the same text."""
    import matplotlib as mpl

    with mpl.rc_context(_SVG):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
