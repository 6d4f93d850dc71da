"""What the service says of itself at `/openapi.json`: bodies that it reads by hand beside FastAPI's own."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from router.embeddings import EmbeddingRequest
from router.schema import ChatRequest, CompletionRequest, RouteRequest

_BODIES: Mapping[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/embeddings": EmbeddingRequest,
    "/route": RouteRequest,
}
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


def describe(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """A function that makes the description of `app`, once."""
    plain = app.openapi

    def full() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(plain())
        return app.openapi_schema

    return full


def _completed(found: dict[str, Any]) -> dict[str, Any]:
    wanted = [(model, "validation") for model in _BODIES.values()]
    schemas, defined = models_json_schema(wanted, ref_template=_REF)  # type: ignore[arg-type]
    components = found.setdefault("components", {}).setdefault("schemas", {})
    components |= defined["$defs"] | {"Error": _ERROR}
    for path, model in _BODIES.items():
        body = {"application/json": {"schema": schemas[(model, "validation")]}}
        found["paths"][path]["post"]["requestBody"] = {"required": True, "content": body}
    for methods in found["paths"].values():
        for operation in methods.values():
            operation["responses"] = {**operation["responses"], **_refusals()}
    return found


def _refusals() -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}}
    return {status: {"description": why, "content": content} for status, why in _REFUSALS.items()}
