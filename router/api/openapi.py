"""What the service says of itself at `/openapi.json`: bodies that it reads by hand beside FastAPI's own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from router.api.embeddings import EmbeddingRequest
from router.api.schema import ChatRequest, CompletionRequest, RouteRequest

_BODIES: Mapping[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/embeddings": EmbeddingRequest,
    "/route": RouteRequest,
}
_STREAMED = ("/v1/chat/completions", "/v1/completions")  # where `stream` asks for it
_TYPES = {"/": "text/html", "/metrics": "text/plain"}  # of answers that are no JSON
_REF = "#/components/schemas/{model}"
_ERROR = {
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
_REFUSALS = {
    "400": "the request says something wrong, or what no expert here can do; `param` names it",
    "401": "there is no key, or none that is known",
    "404": "there is no such expert",
    "413": "the body is too long",
    "429": "too many requests of one caller; come back after Retry-After seconds",
    "503": "the expert failed or has too many requests; come back after Retry-After seconds",
    "504": "the expert was too slow, or the answer took too long; come back after Retry-After seconds",
}


Names: TypeAlias = Mapping[type[BaseModel], Sequence[str]]


def describe(app: FastAPI, names: Names) -> Callable[[], dict[str, Any]]:
    """A function that makes the description of `app`, once.

    Args:
        names: what a request may say as `model`, by kind of request.
    """
    plain = app.openapi

    def full() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(plain(), names)
        return app.openapi_schema

    return full


def _completed(found: dict[str, Any], names: Names) -> dict[str, Any]:
    wanted = [(model, "validation") for model in _BODIES.values()]
    schemas, defined = models_json_schema(wanted, ref_template=_REF)  # type: ignore[arg-type]
    components = found.setdefault("components", {}).setdefault("schemas", {})
    components |= defined["$defs"] | {"Error": _ERROR}
    for model, known in names.items():
        components[model.__name__]["properties"]["model"] = {"type": "string", "enum": list(known)}
    for path, model in _BODIES.items():
        body = {"application/json": {"schema": schemas[(model, "validation")]}}
        found["paths"][path]["post"]["requestBody"] = {"required": True, "content": body}
    for path in _STREAMED:
        found["paths"][path]["post"]["responses"]["200"]["content"]["text/event-stream"] = {}
    for path, kind in _TYPES.items():
        found["paths"][path]["get"]["responses"]["200"]["content"] = {kind: {"schema": {"type": "string"}}}
    for methods in found["paths"].values():
        for operation in methods.values():
            operation["responses"] = {**operation["responses"], **_refusals()}
    return found


def _refusals() -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}}
    return {status: {"description": why, "content": content} for status, why in _REFUSALS.items()}
