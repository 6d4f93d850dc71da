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


def any_object() -> str:
    """A grammar of JSON objects.

    Raises:
        MissingExtra: llama-cpp-python is not installed.
    """
    return str(_library().JSON_GBNF)


def of_schema(schema: dict[str, Any], param: str = "response_format") -> str:
    """A grammar of what a JSON Schema allows.

    Raises:
        BadRequest: the schema is too big, or says what no grammar here can; `param` is the field at fault.
        MissingExtra: llama-cpp-python is not installed.
    """
    text = json.dumps(schema)
    if len(text) > MAX_BYTES:
        raise BadRequest(f"the schema has {len(text)} bytes, more than {MAX_BYTES}", param)
    for key, value in _entries(schema, param):
        _refuse(key, value, param)
    try:
        grammar: str = _library().json_schema_to_gbnf(text)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        said = str(error) or type(error).__name__
        raise BadRequest(f"the schema cannot be turned into a grammar: {said[:200]}", param) from None
    if len(grammar) > MAX_GRAMMAR:
        raise BadRequest("the schema allows more than a grammar can hold", param)
    return grammar


def _refuse(key: str, value: Any, param: str) -> None:
    if key in _COUNTS and isinstance(value, int) and value > MAX_COUNT:
        raise BadRequest(f"the schema's {key} is {value}, more than {MAX_COUNT}", param)
    if key == "pattern":
        raise BadRequest("the schema has a pattern, which is not supported", param)
    if key == "$ref" and not (isinstance(value, str) and value.startswith("#/")):
        raise BadRequest("the schema's $ref leads out of it, and nothing is fetched", param)


def _entries(value: Any, param: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    if depth > MAX_DEPTH:
        raise BadRequest(f"the schema is nested more than {MAX_DEPTH} deep", param)
    if isinstance(value, dict):
        yield from value.items()
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        yield from _entries(child, param, depth + 1)


def _library() -> Any:
    try:
        import llama_cpp.llama_grammar as library
    except ImportError:
        raise MissingExtra("llama-cpp-python", "quantize") from None
    return library
