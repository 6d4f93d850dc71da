"""JSON Schemas and OpenAPI descriptions as Markdown: a table of the fields of each object."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from benchmarks.tables.markdown import cell, code, left_table

Schema = Mapping[str, Any]
_ERROR = {"$ref": "#/components/schemas/Error"}
_LIMITS = {
    "minimum": ">= {}",
    "exclusiveMinimum": "> {}",
    "maximum": "<= {}",
    "exclusiveMaximum": "< {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
}


def model_tables(model: type[BaseModel], level: int = 2) -> str:
    """A section for a pydantic model and one for each model that its fields refer to."""
    schema = model.model_json_schema(by_alias=True)
    found = {model.__name__: schema} | dict(schema.get("$defs", {}))
    return "\n\n".join(object_table(name, each, level) for name, each in found.items())


def object_table(name: str, schema: Schema, level: int = 2) -> str:
    """Heading, description and fields of one object."""
    parts = [f"{'#' * level} {name}"]
    if schema.get("description"):
        parts.append(cell(schema["description"]))
    if schema.get("properties"):
        parts.append(_fields(schema["properties"], schema.get("required", [])))
    elif schema.get("enum"):
        parts.append(f"One of {', '.join(map(_literal, schema['enum']))}.")
    return "\n\n".join(parts)


def endpoints(description: Schema) -> str:
    """Sections of an OpenAPI description: each operation, the errors, each object."""
    operations = [
        _operation(method.upper(), path, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = description.get("components", {}).get("schemas", {})
    objects = [object_table(name, each, 3) for name, each in schemas.items() if "properties" in each]
    return "\n\n".join([*operations, _errors(description), "## Objects", *objects])


def _operation(method: str, path: str, operation: Schema) -> str:
    parts = [f"## {method} {path}"]
    if text := operation.get("description") or operation.get("summary"):
        parts.append(cell(text))
    for media in operation.get("requestBody", {}).get("content", {}).values():
        parts.append(f"Body: {kind(media['schema'])}.")
    answers = operation.get("responses", {})
    errors = [code(status) for status in sorted(answers) if _is_error(answers[status])]
    rows = [
        _response(status, answers[status]) for status in sorted(answers) if not _is_error(answers[status])
    ]
    parts.append(left_table(["status", "meaning", "content"], rows))
    return "\n\n".join([*parts, *([f"[Errors](#errors): {', '.join(errors)}."] if errors else [])])


def _errors(description: Schema) -> str:
    """Every error once: status and meaning."""
    meanings: dict[str, str] = {}
    for methods in description["paths"].values():
        for operation in methods.values():
            for status, answer in operation.get("responses", {}).items():
                if _is_error(answer):
                    meanings.setdefault(status, answer.get("description", ""))
    rows = [[code(status), cell(meanings[status])] for status in sorted(meanings)]
    return "\n\n".join(["## Errors", f"Body: {kind(_ERROR)}.", left_table(["status", "meaning"], rows)])


def _is_error(answer: Schema) -> bool:
    return any(held.get("schema") == _ERROR for held in answer.get("content", {}).values())


def _response(status: str, answer: Schema) -> list[str]:
    return [code(status), cell(answer.get("description", "")), _content(answer)]


def _content(answer: Schema) -> str:
    shown = []
    for media, held in answer.get("content", {}).items():
        schema = held.get("schema") or {}
        shown.append(code(media) + (f" ({kind(schema)})" if "$ref" in schema else ""))
    return ", ".join(shown)


def _fields(properties: Mapping[str, Schema], required: Sequence[str]) -> str:
    documented = any("description" in each for each in properties.values())
    rows = []
    for name, schema in properties.items():
        default = "required" if name in required else _default(schema)
        row = [code(name), kind(schema), default]
        rows.append([*row, cell(schema.get("description", ""))] if documented else row)
    return left_table(["key", "type", "default", *(["description"] if documented else [])], rows)


def kind(schema: Schema) -> str:
    """The type of a value in words, with its limits; objects are links to their sections."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "allOf" in schema and len(schema["allOf"]) == 1:
        return kind(schema["allOf"][0])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(map(kind, schema[several])))
    if "const" in schema:
        return _literal(schema["const"])
    if "enum" in schema:
        return " or ".join(map(_literal, schema["enum"]))
    return ", ".join([_name(schema), *_limits(schema)])


def _name(schema: Schema) -> str:
    given = schema.get("type")
    if isinstance(given, list):
        return " or ".join(given)
    if given == "array":
        return f"list of {kind(schema['items'])}" if schema.get("items") else "list"
    values = schema.get("additionalProperties")
    if given == "object" and isinstance(values, Mapping) and values:
        return f"mapping to {kind(values)}"
    if given == "object":
        return "mapping"
    return "path" if schema.get("format") == "path" else str(given or "any")


def _limits(schema: Schema) -> Iterator[str]:
    for key, text in _LIMITS.items():
        if key in schema:
            value = schema[key]
            yield text.format(int(value) if isinstance(value, float) and value.is_integer() else value)


def _default(schema: Schema) -> str:
    if "default" not in schema:
        return ""
    value = schema["default"]
    return "see there" if isinstance(value, Mapping) and value else _literal(value)


def _literal(value: Any) -> str:
    return code(json.dumps(value) if not isinstance(value, str) else value) or '`""`'
