"""Statistics of two scrapes, by hand; and what is no page of a service."""

import pytest

from mom.display.service_stats import (
    Scrape,
    expert_stats,
    histogram_quantile,
    overall,
    parse_experts,
    parse_metrics,
    request_counts,
)
from mom.workflows.top import table
from router.api.prometheus import Metrics

PAGE = """
mom_routing_decisions_total{decided_by="words",domain="law",expert="lex",fallback="false"} 6
mom_routing_decisions_total{decided_by="words",domain="bio",expert="bio",fallback="false"} 2
mom_tokens_total{expert="lex",kind="completion"} 100
mom_failovers_total{cause="retry",expert="lex"} 2
mom_failovers_total{cause="ExpertTimeout",expert="lex"} 1
mom_http_requests_total{endpoint="/",status="200"} 5
mom_http_requests_total{endpoint="/",status="503"} 2
mom_time_to_first_token_seconds_bucket{expert="lex",le="0.1"} 5
mom_time_to_first_token_seconds_bucket{expert="lex",le="0.5"} 10
mom_time_to_first_token_seconds_bucket{expert="lex",le="+Inf"} 10
"""
EXPERTS = {"experts": [{"name": "bio", "domain": "biochem"}, {"name": "lex", "domain": "law"}]}


def test_two_readings_make_rates() -> None:
    before = parse_metrics(PAGE.replace(" 100", " 40"), 10.0)
    lex, bio = expert_stats(EXPERTS, before, parse_metrics(PAGE, 12.0))
    assert (lex.tokens_per_second, lex.routed_share, lex.failovers) == (30.0, 0.75, 3)
    assert lex.time_to_first_token_ms == pytest.approx((100, 100 + 400 * 0.9))
    assert bio.time_to_first_token_ms == (None, None) and bio.tokens_per_second == 0
    anew = parse_metrics(PAGE.replace(" 100", " 500"), 10.0)
    assert expert_stats(EXPERTS, anew, parse_metrics(PAGE, 12.0))[0].tokens_per_second == 50.0, (
        "it began anew"
    )
    assert expert_stats(EXPERTS, None, Scrape(1.0))[0].routed_share is None
    assert request_counts(parse_metrics(PAGE, 0)) == {"requests": 7, "client_errors": 0, "server_errors": 2}
    assert table(expert_stats(EXPERTS, None, before), before, "here").row_count == 2


def test_quantiles_lie_within_their_bucket() -> None:
    bounds = [(1.0, 2.0), (2.0, 2.0), (4.0, 4.0), (float("inf"), 5.0)]
    assert histogram_quantile(bounds, 0.2) == pytest.approx(0.5)
    assert histogram_quantile(bounds, 0.6) == pytest.approx(3.0)
    assert histogram_quantile(bounds, 0.99) == 4.0, "the last bound that is one"
    assert histogram_quantile([], 0.5) is None and histogram_quantile([(1.0, 0.0)], 0.5) is None


def test_the_callers_own_choices_are_no_share_of_the_routers() -> None:
    named = 'mom_routing_decisions_total{decided_by="name",domain="law",expert="lex",fallback="false"} 90\n'
    unsure = 'mom_routing_decisions_total{decided_by="words",domain="bio",expert="bio",fallback="true"} 4\n'
    now = parse_metrics(PAGE + named + unsure, 1.0)
    lex, bio = expert_stats(EXPERTS, None, now)
    assert (lex.decisions, lex.routed_share, lex.fallbacks) == (96, 0.5, 0)
    assert (bio.decisions, bio.routed_share, bio.fallbacks) == (6, 0.5, 4)
    every = overall([lex, bio], now)
    assert (every.decisions, every.fallbacks, every.failovers, every.completion_tokens) == (102, 4, 3, 100)
    assert every.time_to_first_token_ms == lex.time_to_first_token_ms and every.tokens_per_second is None


def test_the_page_of_a_service_that_nobody_asked_is_one_of_mom() -> None:
    assert parse_metrics(Metrics().text().decode(), 0.0).samples == {}
    for text in ("up 1\n", "", "mom_http_requests_total{ 1\n", "mom_http_requests_total NaN\n"):
        with pytest.raises(ValueError):
            parse_metrics(text, 0.0)
    for text in (
        "[]",
        "{}",
        '{"experts": [{"name": "a"}]}',
        '{"experts": [{"name": "\\u001b[2J", "domain": "law"}]}',
    ):
        with pytest.raises(ValueError):
            parse_experts(text)
