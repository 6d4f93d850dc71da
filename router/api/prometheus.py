"""What the service counts, for Prometheus: requests, decisions, tokens, and the time to the first of them.

Counts are of this process; labels are names of experts, domains and endpoints, never a text or a key.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.engine.worker import Begun, Event
from router.routing.decide import Decision

TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_MODELS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models")
_ENDPOINTS = frozenset((*_MODELS, "/route", "/", "/experts", "/health", "/ready"))


class Metrics:
    """The counters of one application."""

    def __init__(self) -> None:
        self._all = all_ = CollectorRegistry()
        self._requests = Counter(
            "mom_requests", "Requests, by endpoint and status", ["endpoint", "status"], registry=all_
        )
        self._seconds = Histogram(
            "mom_request_seconds", "Until an answer ended", ["endpoint"], buckets=_SECONDS, registry=all_
        )
        self._decisions = Counter(
            "mom_decisions",
            "Routing decisions",
            ["expert", "domain", "fallback", "decided_by"],
            registry=all_,
        )
        self._tokens = Counter("mom_tokens", "Tokens read and written", ["expert", "kind"], registry=all_)
        self._first = Histogram(
            "mom_first_token_seconds", "Until the first token", ["expert"], buckets=_SECONDS, registry=all_
        )
        self._failovers = Counter(
            "mom_failovers",
            "Experts that gave no first token, by what was done or why",
            ["expert", "cause"],
            registry=all_,
        )
        self._running = Gauge(
            "mom_answers_running", "Answers being waited for or written", ["expert"], registry=all_
        )

    def decided(self, decision: Decision) -> None:
        """Count who was chosen."""
        fallback, by = str(decision.fallback).lower(), decision.decided_by or "name"
        self._decisions.labels(decision.expert, decision.domain, fallback, by).inc()

    def failed_over(self, expert: str, cause: str) -> None:
        """Count that an expert was asked again (`retry`), or the generalist in its place and why."""
        self._failovers.labels(expert, cause).inc()

    async def watched(self, events: AsyncGenerator[Event], expert: str) -> AsyncGenerator[Event]:
        """The same events, with their tokens and the time to the first counted."""
        asked, first = perf_counter(), True
        with self._running.labels(expert).track_inprogress():
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Begun):
                        self._tokens.labels(expert, "read").inc(event.prompt_tokens)
                    else:
                        self._tokens.labels(expert, "written").inc(event.tokens)
                        if first:
                            self._first.labels(expert).observe(perf_counter() - asked)
                        first = False
                    yield event

    def running(self) -> dict[str, int]:
        """How many answers each expert is at; those that were never asked are left out."""
        found = (sample for family in self._running.collect() for sample in family.samples)
        return {sample.labels["expert"]: int(sample.value) for sample in found}

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request that ended."""
        endpoint = path if path in _ENDPOINTS else "other"
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._all)


class Counting:
    """ASGI middleware: counts every request with the status that it was answered with."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app; a request that was given up counts as 499, one that broke the app as 500."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun, status = perf_counter(), 499

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            status = 500 if status == 499 else status
            raise
        finally:
            self._metrics.answered(scope["path"], status, perf_counter() - begun)
