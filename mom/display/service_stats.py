"""Statistics of a running service from two scrapes of its metrics: a row for each expert. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, TypeAlias

from pydantic import BaseModel, Field

from slices.errors import MissingExtra

Labels: TypeAlias = tuple[tuple[str, str], ...]
Buckets: TypeAlias = list[tuple[float, float]]  # upper bound, cumulative count
PRINTABLE = r"^\P{C}+$"  # no control characters, which a terminal would obey


class _Expert(BaseModel):
    name: str = Field(pattern=PRINTABLE)
    domain: str = Field(pattern=PRINTABLE)


class _Experts(BaseModel):
    experts: list[_Expert]


@dataclass(frozen=True)
class Scrape:
    """The samples of a `/metrics` page by name and labels, taken at `time` seconds of some clock."""

    time: float
    samples: Mapping[str, Mapping[Labels, float]] = field(default_factory=dict)

    def total(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        required = set(labels.items())
        return sum(value for key, value in self.samples.get(name, {}).items() if required <= set(key))

    def buckets(self, name: str, **labels: str) -> Buckets:
        """The upper bounds of a histogram and their cumulative counts."""
        required, counts = set(labels.items()), dict[float, float]()
        for key, value in self.samples.get(f"{name}_bucket", {}).items():
            if required <= set(key):
                bound = float(dict(key)["le"])
                counts[bound] = counts.get(bound, 0.0) + value
        return sorted(counts.items())


@dataclass(frozen=True)
class ExpertStats:
    """An expert's counts since the service started, and its present load.

    `routed_share` is of the router's own decisions, `fallbacks` those for want of a sure expert, `failovers`
    how often it gave no first token and was retried or replaced. `tokens_per_second` is since the scrape
    before, `time_to_first_token_ms` p50 and p95. None where nothing is known yet.
    """

    expert: str
    domain: str
    running: int
    decisions: int
    routed_share: float | None
    fallbacks: int
    failovers: int
    completion_tokens: int
    tokens_per_second: float | None
    time_to_first_token_ms: tuple[float | None, float | None]


def parse_metrics(text: str, time: float) -> Scrape:
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
    if not any(family.name.startswith("mom_http_requests") for family in families):
        raise ValueError("there is no mom_http_requests_total")
    for sample in (each for family in families for each in family.samples):
        if not isfinite(sample.value):
            raise ValueError(f"{sample.name} is {sample.value}")
        samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return Scrape(time, samples)


def parse_experts(text: str) -> dict[str, Any]:
    """Names and domains of `/experts`.

    Raises:
        ValueError: it is not such a document.
    """
    return _Experts.model_validate_json(text).model_dump()


def expert_stats(experts: Mapping[str, Any], before: Scrape | None, now: Scrape) -> list[ExpertStats]:
    """The statistics of each expert of `/experts`, the busiest first."""
    stats = [_stats(each["name"], each["domain"], before, now) for each in experts["experts"]]
    return sorted(stats, key=lambda each: (-each.decisions, each.expert))


def overall(stats: Sequence[ExpertStats], now: Scrape) -> ExpertStats:
    """The sums over all experts."""
    rates = [each.tokens_per_second for each in stats if each.tokens_per_second is not None]
    return ExpertStats(
        expert="all",
        domain="",
        running=sum(each.running for each in stats),
        decisions=sum(each.decisions for each in stats),
        routed_share=None,
        fallbacks=sum(each.fallbacks for each in stats),
        failovers=sum(each.failovers for each in stats),
        completion_tokens=sum(each.completion_tokens for each in stats),
        tokens_per_second=sum(rates) if rates else None,
        time_to_first_token_ms=_time_to_first_token_ms(now),
    )


def request_counts(now: Scrape) -> dict[str, int]:
    """HTTP requests since the service started: all, client errors (4xx) and server errors (5xx)."""
    first_digits = {"requests": "", "client_errors": "4", "server_errors": "5"}
    samples = now.samples.get("mom_http_requests_total", {})
    return {
        name: int(sum(value for key, value in samples.items() if _status(key).startswith(digit)))
        for name, digit in first_digits.items()
    }


def histogram_quantile(buckets: Buckets, q: float) -> float | None:
    """The q-quantile, linear within its bucket as Prometheus' function of that name; None without counts."""
    if not buckets or not buckets[-1][1]:
        return None
    rank, lower, below = q * buckets[-1][1], 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            if bound == float("inf"):
                return lower
            fraction = (rank - below) / (count - below) if count > below else 1.0
            return lower + (bound - lower) * fraction
        lower, below = bound, count
    return lower


def to_json(stats: Sequence[ExpertStats], now: Scrape) -> dict[str, Any]:
    """Statistics and request counts for `--json`."""
    experts = [asdict(each) for each in stats]
    return {"experts": experts, "all": asdict(overall(stats, now)), **request_counts(now)}


def _stats(expert: str, domain: str, before: Scrape | None, now: Scrape) -> ExpertStats:
    routed, all_routed = _routed(now, expert=expert), _routed(now)
    return ExpertStats(
        expert=expert,
        domain=domain,
        running=int(now.total("mom_num_requests_running", expert=expert)),
        decisions=int(now.total("mom_routing_decisions_total", expert=expert)),
        routed_share=routed / all_routed if all_routed else None,
        fallbacks=int(now.total("mom_routing_decisions_total", expert=expert, fallback="true")),
        failovers=int(now.total("mom_failovers_total", expert=expert)),
        completion_tokens=int(now.total("mom_tokens_total", expert=expert, kind="completion")),
        tokens_per_second=_tokens_per_second(expert, before, now),
        time_to_first_token_ms=_time_to_first_token_ms(now, expert=expert),
    )


def _status(labels: Labels) -> str:
    return dict(labels).get("status", "")


def _routed(now: Scrape, **labels: str) -> float:
    """Decisions of the router, without those of callers who named their expert."""
    named = now.total("mom_routing_decisions_total", decided_by="name", **labels)
    return now.total("mom_routing_decisions_total", **labels) - named


def _time_to_first_token_ms(now: Scrape, **labels: str) -> tuple[float | None, float | None]:
    buckets = now.buckets("mom_time_to_first_token_seconds", **labels)
    p50, p95 = (histogram_quantile(buckets, q) for q in (0.5, 0.95))
    return None if p50 is None else 1000 * p50, None if p95 is None else 1000 * p95


def _tokens_per_second(expert: str, before: Scrape | None, now: Scrape) -> float | None:
    if before is None or now.time <= before.time:
        return None
    old, new = (each.total("mom_tokens_total", expert=expert, kind="completion") for each in (before, now))
    tokens = new - old if new >= old else new  # the service was restarted
    return tokens / (now.time - before.time)
