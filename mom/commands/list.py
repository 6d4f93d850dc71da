"""`mom list`: the slices there are."""

from mom.commands.options import Json, emit


def list_(json: Json = False) -> None:
    """List the slices there are, with sizes and headline quality."""
    from mom.workflows import slice

    figures = slice.listing()
    emit(json, figures, lambda: slice.show_list(figures))
