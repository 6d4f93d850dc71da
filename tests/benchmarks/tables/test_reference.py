"""The generated reference: every command, option and key is on its page."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, Field

from benchmarks.tables import reference
from benchmarks.tables.cli_reference import cli_page, parameters
from benchmarks.tables.schema_reference import endpoints, model_tables
from router.settings import Settings


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


def paint(
    wall: Annotated[str, typer.Argument(help="Which <wall>.")],
    colour: Annotated[Colour, typer.Option(help="Of the paint.")] = Colour.RED,
    coats: Annotated[int, typer.Option(min=1)] = 2,
    brush: Annotated[list[Path] | None, typer.Option("-b", "--brush", envvar="BRUSH")] = None,
    dry: Annotated[bool, typer.Option("--dry")] = False,
) -> None:
    """Paint a wall."""


def test_options_have_names_values_and_defaults() -> None:
    wall, colour, coats, brush, dry = parameters(paint)
    assert (wall.names, wall.argument) == ("WALL", True)
    assert (colour.names, colour.value, colour.default) == ("--colour", "red | blue", "`red`")
    assert (coats.value, coats.default) == ("INTEGER >= 1", "`2`")
    assert (brush.names, brush.value, brush.default) == ("-b, --brush", "PATH ...", "`$BRUSH`")
    assert (dry.names, dry.value, dry.default) == ("--dry", "", "")


def test_a_page_has_a_section_a_command_and_no_tags() -> None:
    app, group = typer.Typer(), typer.Typer()
    app.command("paint")(paint)
    group.command("again")(paint)
    app.add_typer(group, name="walls")
    page = cli_page(app)
    assert "## mom paint\n\nPaint a wall." in page
    assert "## mom walls again" in page
    assert "Which &lt;wall>." in page


class Brush(BaseModel):
    width: int = Field(default=3, ge=1, le=9)


class Paint(BaseModel):
    """What to paint with."""

    colour: Colour
    brush: Brush | None = None


def test_a_model_has_a_table_an_object() -> None:
    page = model_tables(Paint)
    assert "## Paint\n\nWhat to paint with." in page
    assert "| `colour` | [Colour](#colour) | required |" in page
    assert "| `brush` | [Brush](#brush) or null | `null` |" in page
    assert "| `width` | integer, >= 1, <= 9 | `3` |" in page


def test_every_setting_is_on_its_page() -> None:
    page = reference.serve_yaml()
    assert all(f"| `{key}` |" in page for key in Settings.model_fields)


def test_an_error_is_described_once() -> None:
    schema = {"$ref": "#/components/schemas/Error"}
    error = {"description": "Too large", "content": {"application/json": {"schema": schema}}}
    answers = {"200": {"description": "Fine"}, "413": error}
    paths = {path: {"get": {"summary": "Read.", "responses": answers}} for path in ("/a", "/b")}
    page = endpoints({"paths": paths})
    assert page.count("Too large") == 1
    assert page.count("[Errors](#errors): `413`.") == 2
