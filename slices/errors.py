"""Errors of the slicing package.

SliceError
├── NotFound        a model, slice, domain or corpus that is not there
├── BadCheckpoint   a file that is damaged, truncated, or does not match its config
├── BadConfig       a YAML or JSON file with a wrong or missing value
├── InvalidCut      a cut that the architecture cannot express
├── Unsupported     valid, but not implemented
├── Exists          an output that already exists
├── MissingExtra    an optional package that is not installed
└── RunFailed       a runtime or a child process that failed
    └── PromptTooLong   more tokens than the context holds

A message states what was expected, what was found and what to do. `mom` prints it on one line.
"""


class SliceError(Exception):
    """Base of all errors that the caller can correct."""


class NotFound(SliceError):
    """A model, slice, domain or corpus is not there."""


class BadCheckpoint(SliceError):
    """A checkpoint's files are damaged, truncated, or do not match its config."""


class BadConfig(SliceError):
    """A YAML or JSON file has a wrong or missing value."""


class InvalidCut(SliceError):
    """The architecture cannot express the requested cut."""


class Unsupported(SliceError):
    """A valid request that this version does not implement."""


class Exists(SliceError):
    """The output already exists."""


class MissingExtra(SliceError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"the package {package!r} is not installed; it comes with the extra [{extra}]: "
            f"pip install 'mom-slicer[{extra}]'"
        )
        self._arguments = (package, extra)

    def __reduce__(self) -> "tuple[type[MissingExtra], tuple[str, str]]":
        """Pickled with its two arguments, since errors cross processes."""
        return type(self), self._arguments


class RunFailed(SliceError):
    """A runtime or a child process failed."""


class PromptTooLong(RunFailed):
    """The prompt has more tokens than the context holds."""
