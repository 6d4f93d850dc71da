"""Errors as the OpenAI clients expect them: a status and `{"error": {message, type, param, code}}`.

The one place where an exception becomes HTTP. An error that nobody foresaw tells the caller nothing
of its inside; it is raised on, so that the server logs it.
"""

from collections.abc import Callable
from math import ceil
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from router.errors import (
    BadRequest,
    DeadlinePassed,
    ExpertFailed,
    NotAllowed,
    Overloaded,
    RouterError,
    TooOften,
    TooSlow,
    UnknownModel,
)
from slices.errors import PromptTooLong, SliceError, Unsupported

INVALID = "invalid_request_error"
SERVER = "server_error"
GONE = 499  # nginx's "client closed request"; nobody is left to read it

_KNOWN: tuple[tuple[type[Exception], int, str, str | None], ...] = (
    (BadRequest, 400, INVALID, None),
    (NotAllowed, 401, INVALID, "invalid_api_key"),
    (TooOften, 429, "rate_limit_error", "rate_limit_exceeded"),
    (UnknownModel, 404, INVALID, "model_not_found"),
    (Overloaded, 503, "overloaded_error", "overloaded"),
    (ExpertFailed, 503, SERVER, "expert_failed"),
    (TooSlow, 504, SERVER, "expert_too_slow"),
    (DeadlinePassed, 504, SERVER, "deadline_passed"),
    (PromptTooLong, 400, INVALID, "context_length_exceeded"),
    (Unsupported, 400, INVALID, "unsupported"),
    (RouterError, 500, SERVER, None),
    (SliceError, 500, SERVER, None),
)


def install(app: FastAPI) -> None:
    """Make every error of `app` an OpenAI error body."""
    handlers: dict[type[Exception], Callable[[Request, Any], Response]] = {
        RouterError: _on_known,
        SliceError: _on_known,
        HTTPException: _on_http,
        ClientDisconnect: _on_gone,
        Exception: _on_unforeseen,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def answer_to(error: Exception) -> Response:
    """The whole answer to a request that ended in `error`, which was foreseen."""
    status = _describe(error)[0]
    headers = {"retry-after": "1"} if status in (503, 504) else {}
    if isinstance(error, TooOften | Overloaded):
        headers = {"retry-after": str(max(1, ceil(error.wait)))}
    if isinstance(error, NotAllowed):
        headers = {"www-authenticate": "Bearer"}
    return JSONResponse(body(error), status, headers=headers)


def body(error: Exception) -> dict[str, Any]:
    """The OpenAI error body of `error`."""
    _, kind, code = _describe(error)
    known = isinstance(error, RouterError | SliceError)
    message = str(error) if known else "the server failed on this request"
    return _body(message, kind, getattr(error, "param", None), code)


def invalid(error: ValidationError) -> BadRequest:
    """The first fault of a request body, as one sentence that names the field."""
    first = error.errors(include_url=False, include_input=False)[0]
    steps = [str(step) for step in first["loc"]]
    where = ".".join(steps)
    return BadRequest(f"{where}: {first['msg']}" if where else first["msg"], steps[0] if steps else None)


def _describe(error: Exception) -> tuple[int, str, str | None]:
    for kind, status, name, code in _KNOWN:
        if isinstance(error, kind):
            return status, name, code
    return 500, SERVER, None


def _body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _on_known(_: Request, error: Exception) -> Response:
    return answer_to(error)


def _on_http(request: Request, error: HTTPException) -> Response:
    message = str(error.detail)
    if error.status_code == 404:
        message = f"there is nothing at {request.url.path}"
    elif error.status_code == 405:
        message = f"{request.url.path} does not take {request.method}"
    return JSONResponse(_body(message, INVALID, None, None), error.status_code, headers=error.headers)


def _on_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=GONE)


def _on_unforeseen(_: Request, error: Exception) -> Response:
    return JSONResponse(body(error), 500)
