"""Prometheus metrics: requests, routing decisions, tokens, time to first token, failovers.

Counts are of this process; labels are names of experts, domains and endpoints, never a text or a key.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.engine.worker import Event, GenerationStarted
from router.routing.decide import Decision

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)  # seconds
_OPENAI = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models")
_ENDPOINTS = frozenset((*_OPENAI, "/route", "/", "/experts", "/health", "/ready"))


class Metrics:
    """The metrics of one application, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("mom_http_requests", "HTTP requests", "endpoint", "status")
        self._durations = self._histogram(
            "mom_http_request_duration_seconds",
            "Duration of an HTTP request, to the end of its answer",
            "endpoint",
        )
        self._decisions = self._counter(
            "mom_routing_decisions", "Routing decisions", "expert", "domain", "fallback", "decided_by"
        )
        self._tokens = self._counter("mom_tokens", "Tokens of prompts and completions", "expert", "kind")
        self._first_token = self._histogram(
            "mom_time_to_first_token_seconds", "Time to first token, after routing", "expert"
        )
        self._failovers = self._counter(
            "mom_failovers", "Experts that gave no first token, by error class, or `retry`", "expert", "cause"
        )
        self._running = Gauge(
            "mom_num_requests_running",
            "Choices that are queued or being generated",
            ["expert"],
            registry=self._registry,
        )

    def count_decision(self, decision: Decision) -> None:
        """Count a routing decision; `decided_by` is "name" where the caller named the expert."""
        fallback, decided_by = str(decision.fallback).lower(), decision.decided_by or "name"
        self._decisions.labels(decision.expert, decision.domain, fallback, decided_by).inc()

    def count_failover(self, expert: str, cause: str) -> None:
        """Count a failure of `expert`: `cause` is "retry", or the error for which the generalist answers."""
        self._failovers.labels(expert, cause).inc()

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count an HTTP request that ended."""
        endpoint = path if path in _ENDPOINTS else "other"
        self._requests.labels(endpoint, str(status)).inc()
        self._durations.labels(endpoint).observe(seconds)

    async def instrument(self, events: AsyncGenerator[Event], expert: str) -> AsyncGenerator[Event]:
        """The same events, with tokens and time to first token counted."""
        start, first = perf_counter(), True
        with self._running.labels(expert).track_inprogress():
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, GenerationStarted):
                        self._tokens.labels(expert, "prompt").inc(event.prompt_tokens)
                    else:
                        self._tokens.labels(expert, "completion").inc(event.tokens)
                        if first:
                            self._first_token.labels(expert).observe(perf_counter() - start)
                        first = False
                    yield event

    def running(self) -> dict[str, int]:
        """Running choices by expert; experts without any request are left out."""
        samples = (sample for family in self._running.collect() for sample in family.samples)
        return {sample.labels["expert"]: int(sample.value) for sample in samples}

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(name, description, labels, registry=self._registry)

    def _histogram(self, name: str, description: str, *labels: str) -> Histogram:
        return Histogram(name, description, labels, buckets=_BUCKETS, registry=self._registry)


class MetricsMiddleware:
    """ASGI middleware that counts every request with its status and duration."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app; a cancelled request counts as 499, an uncaught exception as 500."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        start, status = perf_counter(), 499

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note_status)
        except Exception:
            status = 500 if status == 499 else status
            raise
        finally:
            self._metrics.count_request(scope["path"], status, perf_counter() - start)
