"""Error responses in the OpenAI format: a status and `{"error": {message, type, param, code}}`.

The one place where an exception becomes HTTP. The response to an unexpected error reveals nothing of it; it
is raised on, so that the server logs it.
"""

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from router.errors import (
    BadRequest,
    DeadlineExceeded,
    ExpertFailed,
    ExpertTimeout,
    Overloaded,
    RateLimitExceeded,
    RouterError,
    Unauthorized,
    UnknownModel,
)
from slices.errors import PromptTooLong, SliceError, Unsupported

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
CLIENT_CLOSED_REQUEST = 499  # nginx's code; nobody is left to read it

_ERROR_TYPES: tuple[tuple[type[Exception], int, str, str | None], ...] = (  # class, status, type, code
    (BadRequest, 400, INVALID_REQUEST, None),
    (Unauthorized, 401, INVALID_REQUEST, "invalid_api_key"),
    (RateLimitExceeded, 429, "rate_limit_error", "rate_limit_exceeded"),
    (UnknownModel, 404, INVALID_REQUEST, "model_not_found"),
    (Overloaded, 503, "overloaded_error", "overloaded"),
    (ExpertFailed, 503, SERVER_ERROR, "expert_failed"),
    (ExpertTimeout, 504, SERVER_ERROR, "expert_timeout"),
    (DeadlineExceeded, 504, SERVER_ERROR, "deadline_exceeded"),
    (PromptTooLong, 400, INVALID_REQUEST, "context_length_exceeded"),
    (Unsupported, 400, INVALID_REQUEST, "unsupported"),
    (RouterError, 500, SERVER_ERROR, None),
    (SliceError, 500, SERVER_ERROR, None),
)


def install(app: FastAPI) -> None:
    """Register the handlers, so that every error of `app` has an OpenAI error body."""
    handlers: dict[type[Exception], Callable[[Request, Any], Response]] = {
        RouterError: _on_expected,
        SliceError: _on_expected,
        RequestValidationError: _on_invalid_body,
        HTTPException: _on_http,
        ClientDisconnect: _on_disconnect,
        Exception: _on_unexpected,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def response(error: Exception) -> Response:
    """The response to a request that ended in an expected error."""
    status = _classify(error)[0]
    headers = {"retry-after": "1"} if status in (503, 504) else {}
    if isinstance(error, RateLimitExceeded | Overloaded):
        headers = {"retry-after": str(max(1, ceil(error.retry_after)))}
    if isinstance(error, Unauthorized):
        headers = {"www-authenticate": "Bearer"}
    return JSONResponse(body(error), status, headers=headers)


def body(error: Exception) -> dict[str, Any]:
    """The OpenAI error body of `error`."""
    _, kind, code = _classify(error)
    expected = isinstance(error, RouterError | SliceError)
    message = str(error) if expected else "the server failed on this request"
    return _body(message, kind, getattr(error, "param", None), code)


def _classify(error: Exception) -> tuple[int, str, str | None]:
    """Status, type and code."""
    for error_class, status, kind, code in _ERROR_TYPES:
        if isinstance(error, error_class):
            return status, kind, code
    return 500, SERVER_ERROR, None


def _body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _on_expected(_: Request, error: Exception) -> Response:
    return response(error)


def _on_invalid_body(_: Request, error: RequestValidationError) -> Response:
    """400 with the first fault of the body, as one sentence that names the parameter."""
    if isinstance(error.body, bytes):
        return response(BadRequest("expected a JSON body with `content-type: application/json`"))
    first = error.errors()[0]
    path: Sequence[str] = [str(step) for step in first["loc"][1:]]  # without "body"
    where = ".".join(path) or "the request body"
    return response(BadRequest(f"{where}: {first['msg']}", path[0] if path else None))


def _on_http(request: Request, error: HTTPException) -> Response:
    if isinstance(error.__cause__, ClientDisconnect):  # FastAPI's 400 for a body that was not sent to its end
        return _on_disconnect(request, error)
    message = str(error.detail)
    if error.status_code == 404:
        message = f"there is nothing at {request.url.path}"
    elif error.status_code == 405:
        message = f"{request.url.path} does not accept {request.method}"
    return JSONResponse(_body(message, INVALID_REQUEST, None, None), error.status_code, headers=error.headers)


def _on_disconnect(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def _on_unexpected(_: Request, error: Exception) -> Response:
    return JSONResponse(body(error), 500)
