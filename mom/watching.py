"""Two readings of a service's counters as one table: what each expert did, and does now. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Reading:
    """The samples of a `/metrics` page by name and labels, read at `at` seconds of some clock."""

    at: float
    samples: Mapping[str, Mapping[Labels, float]] = field(default_factory=dict)

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        wanted = set(labels.items())
        return sum(value for key, value in self.samples.get(name, {}).items() if wanted <= set(key))

    def by_bound(self, name: str, **labels: str) -> list[tuple[float, float]]:
        """A histogram's bounds and how many came up to each."""
        wanted, found = set(labels.items()), dict[float, float]()
        for key, value in self.samples.get(f"{name}_bucket", {}).items():
            if wanted <= set(key):
                bound = float(dict(key)["le"])
                found[bound] = found.get(bound, 0.0) + value
        return sorted(found.items())


@dataclass(frozen=True)
class Row:
    """An expert: what it was chosen for and wrote since the service began, and what it does now.

    `share` is of all routing decisions; `tokens_per_second` since the reading before, `first_ms` the time to
    the first token, p50 and p95; None where nothing is known yet.
    """

    expert: str
    domain: str
    running: int
    decisions: int
    share: float | None
    failovers: int
    tokens: int
    tokens_per_second: float | None
    first_ms: tuple[float | None, float | None]


def parse(text: str, at: float) -> Reading:
    """A `/metrics` page.

    Raises:
        ValueError: it is none.
    """
    samples: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return Reading(at, samples)


def rows(experts: Mapping[str, Any], before: Reading | None, now: Reading) -> list[Row]:
    """A row for each expert of `/experts`, the busiest first."""
    found = [_row(each["name"], each["domain"], before, now) for each in experts["experts"]]
    return sorted(found, key=lambda row: (-row.decisions, row.expert))


def totals(now: Reading) -> dict[str, int]:
    """Requests since the service began, and those that failed: refused (4xx) and broken (5xx)."""
    kinds = {"requests": "", "refused": "4", "failed": "5"}
    samples = now.samples.get("mom_requests_total", {})
    return {
        kind: int(sum(value for key, value in samples.items() if dict(key)["status"].startswith(first)))
        for kind, first in kinds.items()
    }


def quantile(bounds: list[tuple[float, float]], share: float) -> float | None:
    """Where `share` of a histogram's counts lie, by a line within the bucket; None without counts."""
    if not bounds or not bounds[-1][1]:
        return None
    wanted, low, counted = share * bounds[-1][1], 0.0, 0.0
    for bound, count in bounds:
        if count >= wanted:
            if bound == float("inf"):
                return low
            inside = (wanted - counted) / (count - counted) if count > counted else 1.0
            return low + (bound - low) * inside
        low, counted = bound, count
    return low


def to_json(found: list[Row], now: Reading) -> dict[str, Any]:
    """Rows and totals for `--json`."""
    return {"experts": [asdict(row) for row in found], **totals(now)}


def _row(expert: str, domain: str, before: Reading | None, now: Reading) -> Row:
    decisions, all_ = now.total("mom_decisions_total", expert=expert), now.total("mom_decisions_total")
    first = now.by_bound("mom_first_token_seconds", expert=expert)
    low, high = (quantile(first, share) for share in (0.5, 0.95))
    return Row(
        expert=expert,
        domain=domain,
        running=int(now.total("mom_answers_running", expert=expert)),
        decisions=int(decisions),
        share=decisions / all_ if all_ else None,
        failovers=int(now.total("mom_failovers_total", expert=expert)),
        tokens=int(now.total("mom_tokens_total", expert=expert, kind="written")),
        tokens_per_second=_rate(expert, before, now),
        first_ms=(None if low is None else 1000 * low, None if high is None else 1000 * high),
    )


def _rate(expert: str, before: Reading | None, now: Reading) -> float | None:
    if before is None or now.at <= before.at:
        return None
    was, is_ = (each.total("mom_tokens_total", expert=expert, kind="written") for each in (before, now))
    since = is_ - was if is_ >= was else is_  # the service began anew
    return since / (now.at - before.at)
