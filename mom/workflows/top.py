"""`mom top`: a running service's experts in a table that keeps up, until it is left with q or ctrl-c."""

import time
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult, urlsplit

from rich.box import SIMPLE
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from mom.display import console
from mom.display.keyboard import waiting
from mom.display.service_stats import Reading, Row, overall, parse, parse_experts, rows, to_json, totals
from router.errors import BadSettings, ExpertFailed

SECONDS = 10.0  # that a service has to answer
MOST = 10_000_000  # bytes that are read of an answer
KINDS: dict[str, type[HTTPConnection]] = {"http": HTTPConnection, "https": HTTPSConnection}
COLUMNS = (
    "expert",
    "domain",
    "run-\nning",
    "chosen",
    "share",
    "fall-\nbacks",
    "fail-\novers",
    "tokens",
    "tokens\n/s",
    "first\np50 ms",
    "token\np95 ms",
)  # narrow, for 80 columns


def top(url: str, key: str | None, every: float, once: bool, as_json: bool) -> None:
    """Show the table, again every `every` seconds, or once, as where there is no terminal.

    Raises:
        ExpertFailed: nothing answers there, or something else than mom does.
        BadSettings: the service wants a key, or another one.
        MissingExtra: prometheus-client is not installed.
    """
    before, (now, experts) = None, read(url, key)
    if as_json or once or not console.out.is_terminal:
        time.sleep(every)
        before, (now, experts) = now, read(url, key)
        found = rows(experts, before, now)
        if as_json:
            console.print_json(to_json(found, now))
        else:
            console.wide().print(table(found, now, url))
        return
    first = table(rows(experts, None, now), now, url)
    with (
        suppress(KeyboardInterrupt),
        waiting() as left,
        Live(first, console=console.out, screen=True, auto_refresh=False) as live,
    ):
        while not left(every):
            before, (now, experts) = now, read(url, key)
            live.update(table(rows(experts, before, now), now, url), refresh=True)


def read(url: str, key: str | None) -> tuple[Reading, dict[str, Any]]:
    """What the service tells of itself: its counters and its experts."""
    try:
        experts = parse_experts(_get(f"{url}/experts", key))
        return parse(_get(f"{url}/metrics", key), time.monotonic()), experts
    except (ValueError, HTTPException):
        raise ExpertFailed(f"what answers at {url} is no service of mom") from None


def table(found: list[Row], now: Reading, url: str) -> Table:
    """The table itself."""
    said = totals(now)
    title = f"{escape(url)}: {said['requests']} requests, {said['refused']} refused, {said['failed']} failed"
    made = Table(title=title, title_justify="left", box=SIMPLE, padding=0, show_footer=True)
    for index, (column, foot) in enumerate(zip(COLUMNS, _cells(overall(found, now)), strict=True)):
        made.add_column(column, foot, justify="left" if index < 2 else "right", no_wrap=index == 0)
    for row in found:
        made.add_row(*_cells(row))
    return made


def _cells(row: Row) -> list[str]:
    return [
        escape(row.expert),
        escape(row.domain),
        str(row.running),
        str(row.decisions),
        "-" if row.share is None else f"{row.share:.0%}",
        str(row.fallbacks),
        str(row.failovers),
        str(row.tokens),
        "-" if row.tokens_per_second is None else f"{row.tokens_per_second:.1f}",
        *("-" if each is None else f"{each:.0f}" for each in row.first_ms),
    ]


def _get(url: str, key: str | None) -> str:
    """The text at `url`, past any proxy and following nobody elsewhere: the key is for this service alone."""
    where = _parts(url)
    headers = {"authorization": f"Bearer {_sendable(key)}"} if key else {}
    try:
        with closing(KINDS[where.scheme](where.netloc, timeout=SECONDS)) as connection:
            connection.request("GET", where.path, headers=headers)
            answer = connection.getresponse()
            status, text = answer.status, answer.read(MOST)
    except OSError as error:
        raise ExpertFailed(f"nothing answers at {url}: {error}") from None
    if status == 401:
        raise BadSettings(f"{url} wants a key: --key KEY, as `mom key new` makes them")
    if status != 200:
        raise ExpertFailed(f"{url} answers with status {status}")
    return text.decode()


def _parts(url: str) -> SplitResult:
    try:
        where = urlsplit(url)
        named = where.hostname and where.port != 0
        if where.scheme in KINDS and named and url.isprintable() and " " not in url:
            return where
    except ValueError:
        pass
    raise BadSettings(f"--url {url}: expected http://HOST:PORT or https://...")


def _sendable(key: str) -> str:
    if not (key.isascii() and key.isprintable()):
        raise BadSettings("--key: expected letters, digits, '-' and '_', as `mom key new` makes them")
    return key
