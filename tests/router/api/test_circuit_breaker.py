"""The circuit breaker, by a clock that the test turns."""

from router.api.circuit_breaker import FAILURES, REST, WINDOW, Breaker
from router.settings import Limits


def test_an_expert_that_hangs_is_left_alone_too() -> None:
    """Failures as far apart as the patience of those who ask, and a trial that fails late."""
    now = [0.0]
    breaker = Breaker(lambda: now[0])
    for _ in range(FAILURES):
        now[0] += (Limits().first_token_seconds or 0) + 1
        breaker.failed("lex")
    assert breaker.rests("lex") == REST
    now[0] += 2 * WINDOW
    assert breaker.rests("lex") == 0
    breaker.failed("lex")
    assert breaker.rests("lex") == REST


def test_the_breaker_forgives_and_tries_one_at_a_time() -> None:
    now = [0.0]
    breaker = Breaker(lambda: now[0])
    for _ in range(FAILURES):
        assert breaker.rests("lex") == 0
        breaker.failed("lex")
    assert breaker.rests("lex") == REST and breaker.rests("bio") == 0
    now[0] = REST
    assert breaker.rests("lex") == 0, "one may try it"
    assert breaker.rests("lex") == REST, "the next waits for what comes of that"
    breaker.failed("lex")
    now[0] += REST - 1
    assert breaker.rests("lex") == 1
    now[0] += 1
    assert breaker.rests("lex") == 0
    breaker.answered("lex")
    assert [breaker.rests("lex") for _ in range(3)] == [0, 0, 0]
    for _ in range(2 * FAILURES):  # too far apart to be one outage
        breaker.failed("lex")
        now[0] += WINDOW + 1
    assert breaker.rests("lex") == 0


def test_who_begins_may_be_asked_but_is_forgiven_only_at_the_end() -> None:
    now = 100.0
    breaker = Breaker(lambda: now)
    for _ in range(FAILURES):
        breaker.failed("lex")
    now += REST
    assert breaker.rests("lex") == 0 < breaker.rests("lex")  # the trial, and who comes meanwhile
    breaker.began("lex")
    assert breaker.rests("lex") == breaker.rests("lex") == 0
    breaker.failed("lex")
    assert breaker.rests("lex") == REST
    now += REST
    breaker.began("lex")
    breaker.answered("lex")
    breaker.failed("lex")
    assert breaker.rests("lex") == 0
