"""Tables and cells in Markdown."""

from collections.abc import Sequence


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of figures: columns after the first aligned right."""
    return _lines(columns, ["---", *["---:"] * (len(columns) - 1)], rows)


def left_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text: every column aligned left."""
    return _lines(columns, ["---"] * len(columns), rows)


def cell(text: str) -> str:
    """Plain text that is safe in a cell: on one line, no bars, no tags."""
    line = " ".join(text.split())
    return line.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;").replace("*", "\\*")


def code(text: str) -> str:
    """Text as code in a cell; nothing for an empty text."""
    return f"`{text.replace('|', chr(92) + '|')}`" if text else ""


def _lines(columns: Sequence[str], rule: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [columns, rule, *rows])
