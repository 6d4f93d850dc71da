"""What can go wrong while an expert is made.

SliceError
├── NotFound        a model, slice, domain or corpus that is not there
├── BadCheckpoint   a file that lies, is cut short, or does not match its config
├── BadConfig       a YAML or JSON file that does not say what it should
├── InvalidCut      a plan that the architecture cannot express
├── Unsupported     legal, but not built (yet)
├── Exists          an output that is already there
├── MissingExtra    an optional package that is not installed
└── RunFailed       a runtime or a child process that gave up
    └── PromptTooLong   more tokens than the context holds

A message says what was expected, what was found and what to do. `mom` prints it on one line.
"""


class SliceError(Exception):
    """Base of all errors that are the caller's to mend."""


class NotFound(SliceError):
    """A model, slice, domain or corpus is not there."""


class BadCheckpoint(SliceError):
    """A checkpoint's files lie, are cut short, or disagree with its config."""


class BadConfig(SliceError):
    """A YAML or JSON file does not say what it should."""


class InvalidCut(SliceError):
    """The architecture cannot express the cut that was asked for."""


class Unsupported(SliceError):
    """A legal wish that this version cannot fulfil."""


class Exists(SliceError):
    """The output is already there."""


class MissingExtra(SliceError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"the package {package!r} is not installed; it comes with the extra [{extra}]: "
            f"pip install 'mom-slicer[{extra}]'"
        )
        self._made_of = (package, extra)

    def __reduce__(self) -> "tuple[type[MissingExtra], tuple[str, str]]":
        """Errors cross processes; this one is made of two words, not of its message."""
        return type(self), self._made_of


class RunFailed(SliceError):
    """A runtime or a child process gave up."""


class PromptTooLong(RunFailed):
    """The prompt has more tokens than the context holds."""
