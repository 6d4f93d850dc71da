"""Which experts are left alone for a while because they failed again and again. Pure, but for the clock."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

FAILURES = 5  # in a row, no two of them further apart than WINDOW
WINDOW = 600.0  # seconds: one that hangs fails only once in `first_token_seconds`
REST = 3.0  # seconds that an expert is then left alone; after that one request tries it


@dataclass
class _Record:
    """An expert's failures in a row, the last one's time, and until when it rests."""

    failures: int = 0
    last: float = 0.0
    until: float = 0.0


class Breaker:
    """A circuit breaker for each expert (Nygard, Release It!, 2007)."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock, self._records = clock, dict[str, _Record]()

    def rests(self, expert: str) -> float:
        """Seconds that the expert is still to be left alone, 0 where it may be asked.

        After a rest the first who asks tries it; all others wait for what comes of that.
        """
        now, record = self._clock(), self._records.get(expert)
        if record is None or record.failures < FAILURES:
            return 0.0
        if record.until > now:
            return record.until - now
        record.until = now + REST
        return 0.0

    def failed(self, expert: str) -> None:
        """Note that it did not answer."""
        now, record = self._clock(), self._records.setdefault(expert, _Record())
        goes_on = now - record.last <= WINDOW or record.failures >= FAILURES  # a trial may come much later
        record.failures = record.failures + 1 if goes_on else 1
        record.last, record.until = now, now + REST

    def began(self, expert: str) -> None:
        """Note that a first piece came: it may be asked again, but one more failure sends it back to rest."""
        record = self._records.get(expert)
        if record is not None:
            record.failures, record.until = min(record.failures, FAILURES - 1), 0.0

    def answered(self, expert: str) -> None:
        """Note that an answer came to its end: all is forgiven."""
        self._records.pop(expert, None)
