"""GBNF grammars for llama.cpp from the JSON Schema that an answer must match (`response_format`).

A schema comes from outside: what would make its grammar huge, or fetch something, is refused first.
"""

import json
from collections.abc import Iterator
from typing import Any

from router.errors import BadRequest
from slices.errors import MissingExtra

MAX_SCHEMA_BYTES = 65_536
MAX_GRAMMAR_CHARS = 262_144
MAX_DEPTH = 32
MAX_COUNT = 256  # of minItems, maxItems, minLength and maxLength
_COUNT_KEYWORDS = ("minItems", "maxItems", "minLength", "maxLength")


def any_object_grammar() -> str:
    """A GBNF grammar of JSON objects.

    Raises:
        MissingExtra: llama-cpp-python is not installed.
    """
    return str(_llama_grammar().JSON_GBNF)


def schema_grammar(schema: dict[str, Any], param: str = "response_format") -> str:
    """A GBNF grammar of a JSON Schema.

    Raises:
        BadRequest: the schema is too large, or has an unsupported keyword; `param` is the field at fault.
        MissingExtra: llama-cpp-python is not installed.
    """
    text = json.dumps(schema)
    if len(text) > MAX_SCHEMA_BYTES:
        raise BadRequest(f"the schema has {len(text)} bytes, more than {MAX_SCHEMA_BYTES}", param)
    for key, value in _entries(schema, param):
        _check_keyword(key, value, param)
    try:
        grammar: str = _llama_grammar().json_schema_to_gbnf(text)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise BadRequest(f"the schema cannot be turned into a grammar: {reason[:200]}", param) from None
    if len(grammar) > MAX_GRAMMAR_CHARS:
        raise BadRequest("the schema's grammar is too large", param)
    return grammar


def _check_keyword(key: str, value: Any, param: str) -> None:
    if key in _COUNT_KEYWORDS and isinstance(value, int) and value > MAX_COUNT:
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


def _llama_grammar() -> Any:
    try:
        import llama_cpp.llama_grammar as library
    except ImportError:
        raise MissingExtra("llama-cpp-python", "quantize") from None
    return library
