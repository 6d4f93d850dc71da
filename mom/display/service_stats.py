"""Two readings of a service's counters as one table: what each expert did, and does now. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

from pydantic import BaseModel, Field

from slices.errors import MissingExtra

Labels = tuple[tuple[str, str], ...]
PRINTABLE = r"^\P{C}+$"  # nothing that a terminal would obey


class _Expert(BaseModel):
    name: str = Field(pattern=PRINTABLE)
    domain: str = Field(pattern=PRINTABLE)


class _Experts(BaseModel):
    experts: list[_Expert]


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

    `share` is of the router's own decisions, `fallbacks` those for want of a sure expert, `failovers` how
    often it gave no first token and was asked again or replaced. `tokens_per_second` is since the reading
    before, `first_ms` the time to the first token, p50 and p95. None where nothing is known yet.
    """

    expert: str
    domain: str
    running: int
    decisions: int
    share: float | None
    fallbacks: int
    failovers: int
    tokens: int
    tokens_per_second: float | None
    first_ms: tuple[float | None, float | None]


def parse(text: str, at: float) -> Reading:
    """A `/metrics` page.

    Raises:
        ValueError: it is none, or not one of mom.
        MissingExtra: prometheus-client is not installed.
    """
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError:
        raise MissingExtra("prometheus-client", "serve") from None
    samples: dict[str, dict[Labels, float]] = {}
    families = list(text_string_to_metric_families(text))
    if not any(family.name.startswith("mom_requests") for family in families):
        raise ValueError("there is no mom_requests_total")
    for sample in (each for family in families for each in family.samples):
        if not isfinite(sample.value):
            raise ValueError(f"{sample.name} is {sample.value}")
        samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return Reading(at, samples)


def parse_experts(text: str) -> dict[str, Any]:
    """What `/experts` tells that is used here.

    Raises:
        ValueError: it is not what mom says there.
    """
    return _Experts.model_validate_json(text).model_dump()


def rows(experts: Mapping[str, Any], before: Reading | None, now: Reading) -> list[Row]:
    """A row for each expert of `/experts`, the busiest first."""
    found = [_row(each["name"], each["domain"], before, now) for each in experts["experts"]]
    return sorted(found, key=lambda row: (-row.decisions, row.expert))


def overall(found: list[Row], now: Reading) -> Row:
    """All experts as one."""
    rates = [row.tokens_per_second for row in found if row.tokens_per_second is not None]
    return Row(
        expert="all",
        domain="",
        running=sum(row.running for row in found),
        decisions=sum(row.decisions for row in found),
        share=None,
        fallbacks=sum(row.fallbacks for row in found),
        failovers=sum(row.failovers for row in found),
        tokens=sum(row.tokens for row in found),
        tokens_per_second=sum(rates) if rates else None,
        first_ms=_first_ms(now),
    )


def totals(now: Reading) -> dict[str, int]:
    """Requests since the service began, and those that failed: refused (4xx) and broken (5xx)."""
    kinds = {"requests": "", "refused": "4", "failed": "5"}
    samples = now.samples.get("mom_requests_total", {})
    return {
        kind: int(sum(value for key, value in samples.items() if _status(key).startswith(first)))
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
    return {"experts": [asdict(row) for row in found], "all": asdict(overall(found, now)), **totals(now)}


def _row(expert: str, domain: str, before: Reading | None, now: Reading) -> Row:
    routed, all_ = _routed(now, expert=expert), _routed(now)
    return Row(
        expert=expert,
        domain=domain,
        running=int(now.total("mom_answers_running", expert=expert)),
        decisions=int(now.total("mom_decisions_total", expert=expert)),
        share=routed / all_ if all_ else None,
        fallbacks=int(now.total("mom_decisions_total", expert=expert, fallback="true")),
        failovers=int(now.total("mom_failovers_total", expert=expert)),
        tokens=int(now.total("mom_tokens_total", expert=expert, kind="written")),
        tokens_per_second=_rate(expert, before, now),
        first_ms=_first_ms(now, expert=expert),
    )


def _status(labels: Labels) -> str:
    return dict(labels).get("status", "")


def _routed(now: Reading, **who: str) -> float:
    """Decisions that were the router's: not those of callers who named their expert."""
    named = now.total("mom_decisions_total", decided_by="name", **who)
    return now.total("mom_decisions_total", **who) - named


def _first_ms(now: Reading, **who: str) -> tuple[float | None, float | None]:
    bounds = now.by_bound("mom_first_token_seconds", **who)
    low, high = (quantile(bounds, share) for share in (0.5, 0.95))
    return None if low is None else 1000 * low, None if high is None else 1000 * high


def _rate(expert: str, before: Reading | None, now: Reading) -> float | None:
    if before is None or now.at <= before.at:
        return None
    was, is_ = (each.total("mom_tokens_total", expert=expert, kind="written") for each in (before, now))
    since = is_ - was if is_ >= was else is_  # the service began anew
    return since / (now.at - before.at)
