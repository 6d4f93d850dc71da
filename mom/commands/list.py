"""`mom list`: the slices in `$MOM_HOME`."""

from mom.commands.options import Json, emit


def list_(json: Json = False) -> None:
    """List the slices in $MOM_HOME: one row per file, with its size and measured quality."""
    from mom.workflows import slice

    figures = slice.listing()
    emit(json, figures, lambda: slice.show_list(figures))
