"""What a report is to hold, and how much of everything is asked."""

from collections.abc import Iterable
from dataclasses import dataclass

from slices.errors import BadConfig
from slices.measure.heldout import WINDOW_BYTES
from slices.probes.needle_in_a_haystack import LENGTHS
from slices.probes.run import ITEMS

TASKS = ("text", "mcq", "generate", "code", "probes", "cost")
_ROOM = 64  # tokens beside the text in which a number is hidden


@dataclass(frozen=True)
class Wish:
    """Settings of a report.

    `limit` is bytes of held-out text a domain (None: all of it), in windows of `window` bytes of which the
    last `stride` are scored (None: all). `items` are asked of every task and domain. `lengths`, in tokens,
    are those of the texts in which a number is hidden.
    """

    tasks: frozenset[str] = frozenset({"text"})
    limit: int | None = 60_000
    window: int = WINDOW_BYTES
    stride: int | None = None
    items: int = ITEMS
    lengths: tuple[int, ...] = LENGTHS
    threads: int | None = None
    seed: int = 0

    @property
    def context(self) -> int:
        """Tokens that a model must be able to read at once."""
        needed = [4096, self.window + 2]  # a byte is a token at worst
        return max(needed + [length + _ROOM for length in self.lengths if "probes" in self.tasks])


def parse_tasks(text: str) -> frozenset[str]:
    """The tasks of a list with commas; "all" for every one.

    Raises:
        BadConfig: one of them is unknown.
    """
    names: Iterable[str] = TASKS if text == "all" else [part.strip() for part in text.split(",")]
    for name in names:
        if name not in TASKS:
            raise BadConfig(f"--tasks {text}: no task {name!r}; expected some of {', '.join(TASKS)}, or all")
    return frozenset(names)
