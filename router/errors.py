"""Errors of routing and serving.

RouterError
├── BadSettings        serve.yaml is invalid
├── BadRouter          the stored router is absent, damaged, or does not fit the embedders
├── BadExperts         the slices cannot be served as configured
├── BadTraining        the labelled queries cannot train a router
├── BadRequest         a parameter of the request is invalid or not supported
├── UnknownModel       the request names a model that is not served
├── Unauthorized       the API key is missing or unknown
├── RateLimitExceeded  too many requests of one caller
├── Overloaded         an expert's queue is full, or its circuit breaker is open
├── ExpertTimeout      an expert gave no first token in time
├── DeadlineExceeded   the request took longer than `limits.deadline_seconds`
└── ExpertFailed       an expert's process died, or could not be reached

`router.api.middleware.error_responses` maps them to HTTP; `mom` prints them on one line.
"""


class RouterError(Exception):
    """Base of all errors that the router raises on purpose."""


class BadSettings(RouterError):
    """serve.yaml or a command-line value is invalid."""


class BadRouter(RouterError):
    """The stored router is absent, damaged, or does not fit the embedders."""


class BadExperts(RouterError):
    """The slices cannot be served as configured."""


class BadTraining(RouterError):
    """The labelled queries cannot train a router."""


class BadRequest(RouterError):
    """A parameter of the request is invalid or not supported. `param` names it."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message, param)
        self.message = message
        self.param = param

    def __str__(self) -> str:
        return self.message


class UnknownModel(RouterError):
    """The request names a model that is not served."""


class Unauthorized(RouterError):
    """The API key is missing or unknown."""


class RateLimitExceeded(RouterError):
    """Too many requests of one caller; `retry_after` is the seconds until the next may come."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Overloaded(RouterError):
    """An expert's queue is full, or its circuit breaker is open for `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message, retry_after)
        self.message, self.retry_after = message, retry_after

    def __str__(self) -> str:
        return self.message


class ExpertTimeout(RouterError):
    """An expert gave no first token within `limits.first_token_seconds`."""


class DeadlineExceeded(RouterError):
    """A request took longer than `limits.deadline_seconds`."""


class ExpertFailed(RouterError):
    """An expert's process died, or could not be reached."""
