"""The command-line reference as Markdown, from the signatures of the typer commands.

Only typer's public models are read (`OptionInfo`, `ArgumentInfo`), so no command's module is imported lazily.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, CommandInfo, OptionInfo

from benchmarks.tables.markdown import cell, code, left_table

_VALUES = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True)
class Parameter:
    """An argument or option of a command, as its page shows it."""

    names: str
    value: str
    default: str
    help: str
    argument: bool


def cli_page(app: typer.Typer) -> str:
    """A section a command: usage, description, arguments and options."""
    return "\n\n".join(_section(path, command) for path, command in commands(app))


def commands(app: typer.Typer, prefix: str = "mom") -> Iterator[tuple[str, CommandInfo]]:
    """Each command with its full name, groups after plain commands."""
    for command in app.registered_commands:
        yield f"{prefix} {command.name or _name(command)}", command
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from commands(group.typer_instance, f"{prefix} {group.name}")


def parameters(function: Any) -> list[Parameter]:
    """The parameters of a command in the order of its signature."""
    hints = get_type_hints(function, include_extras=True)
    return [
        _parameter(name, hints[name], parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
    ]


def _name(command: CommandInfo) -> str:
    assert command.callback is not None
    return command.callback.__name__.rstrip("_").replace("_", "-")


def _section(path: str, command: CommandInfo) -> str:
    found = parameters(command.callback)
    arguments = [each for each in found if each.argument]
    usage = " ".join([path, *(each.names for each in arguments), "[OPTIONS]"])
    parts = [f"## {path}", inspect.cleandoc(command.callback.__doc__ or ""), f"```\n{usage}\n```"]
    if arguments:
        rows = [[code(each.names), cell(each.help)] for each in arguments]
        parts.append(left_table(["argument", "description"], rows))
    options = [each for each in found if not each.argument]
    if options:
        rows = [[code(each.names), code(each.value), each.default, cell(each.help)] for each in options]
        parts.append(left_table(["option", "value", "default", "description"], rows))
    return "\n\n".join(parts)


def _parameter(name: str, hint: Any, default: Any) -> Parameter:
    plain, info = _split(hint)
    required = default is inspect.Parameter.empty
    if isinstance(info, ArgumentInfo) or (info is None and required):
        metavar = (info and info.metavar) or name.rstrip("_").upper()
        return Parameter(names=metavar, value="", default="", help=(info and info.help) or "", argument=True)
    kind, many = _kind(plain)
    return Parameter(
        names=_names(name, kind, info),
        value=_value(kind, info) + (" ..." if many else ""),
        default="required" if required else _default(default, info),
        help=(info and info.help) or "",
        argument=False,
    )


def _split(hint: Any) -> tuple[Any, Any]:
    if get_origin(hint) is not Annotated:
        return hint, None
    plain, *rest = get_args(hint)
    return plain, next((each for each in rest if isinstance(each, OptionInfo | ArgumentInfo)), None)


def _kind(hint: Any) -> tuple[Any, bool]:
    """The type of one value, and whether the option may be given several times."""
    if get_origin(hint) in (Union, UnionType):
        hint = next(each for each in get_args(hint) if each is not NoneType)
    return (get_args(hint)[0], True) if get_origin(hint) is list else (hint, False)


def _names(name: str, kind: Any, info: OptionInfo | None) -> str:
    declared = [info.default, *(info.param_decls or ())] if info else []  # typer's first one is `default`
    given = [each for each in declared if isinstance(each, str) and each.startswith("-")]
    long = "--" + name.rstrip("_").replace("_", "-")
    if not given:
        given = [f"{long}/--no-{long[2:]}"] if kind is bool else [long]
    return ", ".join(given)


def _value(kind: Any, info: OptionInfo | None) -> str:
    if kind is bool:
        return ""
    if info and info.metavar:
        return str(info.metavar)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " | ".join(str(each.value) for each in kind)
    value = _VALUES.get(kind, "TEXT")
    low, high = (info.min, info.max) if info else (None, None)
    if low is not None and high is not None:
        return f"{value} {low}..{high}"
    return f"{value} >= {low}" if low is not None else f"{value} <= {high}" if high is not None else value


def _default(default: Any, info: OptionInfo | None) -> str:
    if default is None or default is False or default == []:
        shown = ""
    elif isinstance(default, Enum):
        shown = str(default.value)
    else:
        shown = ", ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
    variable = f"${info.envvar}" if info and info.envvar else ""
    return ", else ".join(code(part) for part in (variable, shown) if part)
