"""`mom top`: a live table of a running service's experts, until q or ctrl-c."""

import time
from contextlib import suppress
from typing import Any

from rich.box import SIMPLE
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from mom.display import console
from mom.display.keyboard import quit_on_q
from mom.display.service_stats import (
    ExpertStats,
    Scrape,
    expert_stats,
    overall,
    parse_experts,
    parse_metrics,
    request_counts,
    to_json,
)
from mom.workflows.service_client import get_text
from router.errors import ExpertFailed

COLUMNS = (
    "expert",
    "domain",
    "run-\nning",
    "routed",
    "share",
    "fall-\nbacks",
    "fail-\novers",
    "tokens",
    "tokens\n/s",
    "TTFT\np50 ms",
    "TTFT\np95 ms",
)  # narrow, for 80 columns


def top(url: str, key: str | None, every: float, once: bool, as_json: bool) -> None:
    """Show the table and refresh it every `every` seconds; print it once without a terminal.

    Raises:
        ExpertFailed: nothing answers there, or something else than mom does.
        BadSettings: the service needs a key, or another one.
        MissingExtra: prometheus-client is not installed.
    """
    if as_json or once or not console.out.is_terminal:
        _print_once(url, key, every, as_json)
    else:
        _refresh(url, key, every)


def scrape(url: str, key: str | None) -> tuple[Scrape, dict[str, Any]]:
    """The service's metrics and its experts."""
    try:
        experts = parse_experts(get_text(f"{url}/experts", key))
        return parse_metrics(get_text(f"{url}/metrics", key), time.monotonic()), experts
    except ValueError:
        raise ExpertFailed(f"what answers at {url} is no service of mom") from None


def table(stats: list[ExpertStats], now: Scrape, url: str) -> Table:
    """The table of a scrape, with sums in its footer."""
    counts = request_counts(now)
    title = f"{escape(url)}: {counts['requests']} requests, {counts['client_errors']} client errors, "
    title += f"{counts['server_errors']} server errors"
    result = Table(title=title, title_justify="left", box=SIMPLE, padding=0, show_footer=True)
    for index, (column, foot) in enumerate(zip(COLUMNS, _cells(overall(stats, now)), strict=True)):
        result.add_column(column, foot, justify="left" if index < 2 else "right", no_wrap=index == 0)
    for each in stats:
        result.add_row(*_cells(each))
    return result


def _print_once(url: str, key: str | None, every: float, as_json: bool) -> None:
    """Two scrapes, `every` seconds apart, since a rate needs both."""
    before, _ = scrape(url, key)
    time.sleep(every)
    now, experts = scrape(url, key)
    stats = expert_stats(experts, before, now)
    if as_json:
        console.print_json(to_json(stats, now))
    else:
        console.wide().print(table(stats, now, url))


def _refresh(url: str, key: str | None, every: float) -> None:
    now, experts = scrape(url, key)
    first = table(expert_stats(experts, None, now), now, url)
    with (
        suppress(KeyboardInterrupt),
        quit_on_q() as pressed_within,
        Live(first, console=console.out, screen=True, auto_refresh=False) as live,
    ):
        while not pressed_within(every):
            before, (now, experts) = now, scrape(url, key)
            live.update(table(expert_stats(experts, before, now), now, url), refresh=True)


def _cells(stats: ExpertStats) -> list[str]:
    return [
        escape(stats.expert),
        escape(stats.domain),
        str(stats.running),
        str(stats.decisions),
        "-" if stats.routed_share is None else f"{stats.routed_share:.0%}",
        str(stats.fallbacks),
        str(stats.failovers),
        str(stats.completion_tokens),
        "-" if stats.tokens_per_second is None else f"{stats.tokens_per_second:.1f}",
        *("-" if each is None else f"{each:.0f}" for each in stats.time_to_first_token_ms),
    ]
