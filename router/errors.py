"""What can go wrong while an expert is chosen and asked.

RouterError
├── BadSettings     serve.yaml does not say what it should
├── BadRouter       the stored router is absent, cut short, or made for something else
├── BadExperts      the slices there are cannot be served as asked
├── BadTraining     the labelled queries cannot train a router
├── BadRequest      the caller's question cannot be put to a model
├── UnknownModel    the caller named an expert that is not served
├── NotAllowed      the caller has no key
├── TooOften        the caller asks more often than it may
├── Overloaded      an expert's queue is full
└── ExpertFailed    an expert's process died, or could not be reached

`router.api.middleware.error_responses` maps them to HTTP; `mom` prints them on one line.
"""


class RouterError(Exception):
    """Base of all errors that the router raises on purpose."""


class BadSettings(RouterError):
    """The settings do not say what they should."""


class BadRouter(RouterError):
    """The stored router is absent, cut short, or made for something else."""


class BadExperts(RouterError):
    """The slices there are cannot be served as asked."""


class BadTraining(RouterError):
    """The labelled queries cannot train a router."""


class BadRequest(RouterError):
    """The caller's question cannot be put to a model. `param` names the field at fault."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message, param)
        self.message = message
        self.param = param

    def __str__(self) -> str:
        return self.message


class UnknownModel(RouterError):
    """The caller named an expert that is not served."""


class NotAllowed(RouterError):
    """The caller has no key."""


class TooOften(RouterError):
    """The caller asks more often than it may; `wait` is the seconds until it may again."""

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(message)
        self.wait = wait


class Overloaded(RouterError):
    """An expert's queue is full, or it is left alone for `wait` seconds because it failed again and again."""

    def __init__(self, message: str, wait: float = 1.0) -> None:
        super().__init__(message, wait)
        self.message, self.wait = message, wait

    def __str__(self) -> str:
        return self.message


class TooSlow(RouterError):
    """An expert said nothing for longer than it may."""


class DeadlinePassed(RouterError):
    """A request took longer than requests may."""


class ExpertFailed(RouterError):
    """An expert's process died, or could not be reached."""
