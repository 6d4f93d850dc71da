"""The circuit breaker, by a clock that the test turns."""

from router.api.circuit_breaker import FAILURE_THRESHOLD, FAILURE_WINDOW, RECOVERY_SECONDS, CircuitBreaker
from router.settings import Limits


def test_an_expert_that_hangs_is_left_alone_too() -> None:
    """Failures as far apart as the patience of those who ask, and a trial that fails late."""
    now = [0.0]
    breaker = CircuitBreaker(lambda: now[0])
    for _ in range(FAILURE_THRESHOLD):
        now[0] += (Limits().first_token_seconds or 0) + 1
        breaker.record_failure("lex")
    assert breaker.retry_after("lex") == RECOVERY_SECONDS
    now[0] += 2 * FAILURE_WINDOW
    assert breaker.retry_after("lex") == 0
    breaker.record_failure("lex")
    assert breaker.retry_after("lex") == RECOVERY_SECONDS


def test_the_breaker_forgives_and_tries_one_at_a_time() -> None:
    now = [0.0]
    breaker = CircuitBreaker(lambda: now[0])
    for _ in range(FAILURE_THRESHOLD):
        assert breaker.retry_after("lex") == 0
        breaker.record_failure("lex")
    assert breaker.retry_after("lex") == RECOVERY_SECONDS and breaker.retry_after("bio") == 0
    now[0] = RECOVERY_SECONDS
    assert breaker.retry_after("lex") == 0, "one may try it"
    assert breaker.retry_after("lex") == RECOVERY_SECONDS, "the next waits for what comes of that"
    breaker.record_failure("lex")
    now[0] += RECOVERY_SECONDS - 1
    assert breaker.retry_after("lex") == 1
    now[0] += 1
    assert breaker.retry_after("lex") == 0
    breaker.record_success("lex")
    assert [breaker.retry_after("lex") for _ in range(3)] == [0, 0, 0]
    for _ in range(2 * FAILURE_THRESHOLD):  # too far apart to be one outage
        breaker.record_failure("lex")
        now[0] += FAILURE_WINDOW + 1
    assert breaker.retry_after("lex") == 0


def test_who_begins_may_be_asked_but_is_forgiven_only_at_the_end() -> None:
    now = 100.0
    breaker = CircuitBreaker(lambda: now)
    for _ in range(FAILURE_THRESHOLD):
        breaker.record_failure("lex")
    now += RECOVERY_SECONDS
    assert breaker.retry_after("lex") == 0 < breaker.retry_after("lex")  # the trial, and who comes meanwhile
    breaker.record_first_piece("lex")
    assert breaker.retry_after("lex") == breaker.retry_after("lex") == 0
    breaker.record_failure("lex")
    assert breaker.retry_after("lex") == RECOVERY_SECONDS
    now += RECOVERY_SECONDS
    breaker.record_first_piece("lex")
    breaker.record_success("lex")
    breaker.record_failure("lex")
    assert breaker.retry_after("lex") == 0
