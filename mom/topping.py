"""`mom top`: a running service's experts in a table that keeps up, until it is left with ctrl-c."""

import json
import time
import urllib.error
import urllib.request
from typing import Any

from rich.live import Live
from rich.table import Table

from mom import console
from mom.watching import Reading, Row, parse, rows, to_json, totals
from router.errors import BadSettings, ExpertFailed

SECONDS = 10.0  # that a service has to answer
COLUMNS = ("expert", "domain", "running", "chosen", "share", "failovers", "tokens", "tokens/s",
           "first token p50", "p95")  # fmt: skip


def top(url: str, key: str | None, every: float, once: bool, as_json: bool) -> None:
    """Show the table, again every `every` seconds, or once.

    Raises:
        ExpertFailed: nothing answers there, or something else than mom does.
        BadSettings: the service wants a key, or another one.
    """
    before, (now, experts) = None, read(url, key)
    if as_json or once:
        time.sleep(every)
        before, (now, experts) = now, read(url, key)
        found = rows(experts, before, now)
        if as_json:
            console.print_json(to_json(found, now))
        else:
            console.wide().print(table(found, now, url))
        return
    with Live(table(rows(experts, None, now), now, url), console=console.out, screen=True) as live:
        while True:
            time.sleep(every)
            before, (now, experts) = now, read(url, key)
            live.update(table(rows(experts, before, now), now, url))


def read(url: str, key: str | None) -> tuple[Reading, dict[str, Any]]:
    """What the service tells of itself: its counters and its experts."""
    try:
        experts = json.loads(_get(f"{url}/experts", key))
        counters = parse(_get(f"{url}/metrics", key), time.monotonic())
        if "experts" not in experts:
            raise ValueError
    except (ValueError, TypeError, KeyError):
        raise ExpertFailed(f"what answers at {url} is no service of mom") from None
    return counters, experts


def table(found: list[Row], now: Reading, url: str) -> Table:
    """The table itself."""
    said = totals(now)
    title = f"{url}: {said['requests']} requests, {said['refused']} refused, {said['failed']} failed"
    made = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(COLUMNS):
        made.add_column(column, justify="left" if index < 2 else "right", no_wrap=index == 0)
    for row in found:
        made.add_row(*_cells(row))
    return made


def _cells(row: Row) -> list[str]:
    return [
        row.expert,
        row.domain,
        str(row.running),
        str(row.decisions),
        "-" if row.share is None else f"{row.share:.0%}",
        str(row.failovers),
        str(row.tokens),
        "-" if row.tokens_per_second is None else f"{row.tokens_per_second:.1f}",
        *("-" if each is None else f"{each:.0f} ms" for each in row.first_ms),
    ]


def _get(url: str, key: str | None) -> str:
    if not url.startswith(("http://", "https://")):
        raise BadSettings(f"--url {url}: expected http://... or https://...")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SECONDS) as answer:
            text: str = answer.read().decode()
            return text
    except urllib.error.HTTPError as error:
        if error.code == 401:
            raise BadSettings(f"{url} wants a key: --key KEY, as `mom key new` makes them") from None
        raise ExpertFailed(f"{url} answers with status {error.code}") from None
    except (OSError, ValueError) as error:
        raise ExpertFailed(f"nothing answers at {url}: {getattr(error, 'reason', error)}") from None
