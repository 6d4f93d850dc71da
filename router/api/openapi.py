"""Additions to FastAPI's `/openapi.json`: error responses, and the values of `model`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from fastapi import FastAPI
from pydantic import BaseModel

_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_ERRORS = {
    "400": "A parameter is invalid or not supported; `param` names it",
    "401": "The API key is missing or unknown",
    "404": "There is no such model",
    "413": "The request body is too large",
    "429": "The rate limit is exceeded; retry after Retry-After seconds",
    "4XX": "Another error of the request",  # it also keeps FastAPI from describing a 422, which is a 400 here
    "503": "The expert failed or has too many requests; retry after Retry-After seconds",
    "504": "The expert was too slow, or the request took too long; retry after Retry-After seconds",
}
_ERROR_CONTENT = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "content": _ERROR_CONTENT} for status, description in _ERRORS.items()
}
STREAM_RESPONSE: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}

ModelNames: TypeAlias = Mapping[type[BaseModel], Sequence[str]]


def with_model_names(app: FastAPI, names: ModelNames) -> Callable[[], dict[str, Any]]:
    """The replacement for `app.openapi`.

    Args:
        names: the values that `model` may have, by request class.
    """
    fastapi_schema = app.openapi

    def schema() -> dict[str, Any]:
        if app.openapi_schema is None:
            components = fastapi_schema()["components"]["schemas"]
            components["Error"] = _ERROR_SCHEMA
            for request, models in names.items():
                components[request.__name__]["properties"]["model"] = {"type": "string", "enum": list(models)}
        return fastapi_schema()

    return schema
