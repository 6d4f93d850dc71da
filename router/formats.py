"""The form that an answer must have (`response_format`) as a grammar for llama.cpp.

A schema comes from outside: what would make its grammar huge, or have something fetched, is refused first.
"""

import json
from collections.abc import Iterator
from typing import Any

from router.errors import BadRequest
from slices.errors import MissingExtra

MAX_BYTES = 65_536  # of a schema as JSON
MAX_GRAMMAR = 262_144  # characters
MAX_DEPTH = 32
MAX_COUNT = 256  # characters or items that a schema may ask for
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength")
_WHERE = "response_format"


def any_object() -> str:
    """A grammar of JSON objects.

    Raises:
        MissingExtra: llama-cpp-python is not installed.
    """
    return str(_library().JSON_GBNF)


def of_schema(schema: dict[str, Any]) -> str:
    """A grammar of what a JSON Schema allows.

    Raises:
        BadRequest: the schema is too big, or says what no grammar here can.
        MissingExtra: llama-cpp-python is not installed.
    """
    text = json.dumps(schema)
    if len(text) > MAX_BYTES:
        raise BadRequest(f"the schema has {len(text)} bytes, more than {MAX_BYTES}", _WHERE)
    for key, value in _entries(schema):
        _refuse(key, value)
    try:
        grammar: str = _library().json_schema_to_gbnf(text)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        said = str(error) or type(error).__name__
        raise BadRequest(f"the schema cannot be turned into a grammar: {said[:200]}", _WHERE) from None
    if len(grammar) > MAX_GRAMMAR:
        raise BadRequest("the schema allows more than a grammar can hold", _WHERE)
    return grammar


def _refuse(key: str, value: Any) -> None:
    if key in _COUNTS and isinstance(value, int) and value > MAX_COUNT:
        raise BadRequest(f"the schema's {key} is {value}, more than {MAX_COUNT}", _WHERE)
    if key == "pattern":
        raise BadRequest("the schema has a pattern, which is not supported", _WHERE)
    if key == "$ref" and not (isinstance(value, str) and value.startswith("#/")):
        raise BadRequest("the schema's $ref leads out of it, and nothing is fetched", _WHERE)


def _entries(value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    if depth > MAX_DEPTH:
        raise BadRequest(f"the schema is nested more than {MAX_DEPTH} deep", _WHERE)
    if isinstance(value, dict):
        yield from value.items()
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        yield from _entries(child, depth + 1)


def _library() -> Any:
    try:
        import llama_cpp.llama_grammar as library
    except ImportError:
        raise MissingExtra("llama-cpp-python", "quantize") from None
    return library
