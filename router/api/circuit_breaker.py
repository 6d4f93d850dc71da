"""A circuit breaker for each expert (Nygard, Release It!, 2007). Pure, but for the clock."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

FAILURE_THRESHOLD = 5  # consecutive failures that open the circuit
FAILURE_WINDOW = 600.0  # seconds between two of them: one that hangs fails once in `first_token_seconds`
RECOVERY_SECONDS = 3.0  # that the circuit stays open; after that one request is let through


@dataclass
class _State:
    """An expert's consecutive failures, the time of the last one, and until when its circuit is open."""

    failures: int = 0
    last_failure: float = 0.0
    open_until: float = 0.0


class CircuitBreaker:
    """Circuit breakers by expert: open after consecutive failures, half-open after a pause."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock, self._states = clock, dict[str, _State]()

    def retry_after(self, expert: str) -> float:
        """Seconds until requests may go to `expert`, 0 if they may now.

        After that the circuit is half-open: the first caller tries the expert, the others wait.
        """
        now, state = self._clock(), self._states.get(expert)
        if state is None or state.failures < FAILURE_THRESHOLD:
            return 0.0
        if state.open_until > now:
            return state.open_until - now
        state.open_until = now + RECOVERY_SECONDS
        return 0.0

    def record_failure(self, expert: str) -> None:
        """Record that it did not answer."""
        now, state = self._clock(), self._states.setdefault(expert, _State())
        is_open = state.failures >= FAILURE_THRESHOLD  # a trial may come much later than the last failure
        consecutive = is_open or now - state.last_failure <= FAILURE_WINDOW
        state.failures = state.failures + 1 if consecutive else 1
        state.last_failure, state.open_until = now, now + RECOVERY_SECONDS

    def record_first_piece(self, expert: str) -> None:
        """Record that an answer began: the circuit closes, but one more failure opens it again."""
        state = self._states.get(expert)
        if state is not None:
            state.failures, state.open_until = min(state.failures, FAILURE_THRESHOLD - 1), 0.0

    def record_success(self, expert: str) -> None:
        """Record that an answer came to its end: its failures are forgotten."""
        self._states.pop(expert, None)
