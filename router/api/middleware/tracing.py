"""A span for each request, for whoever collects them with OpenTelemetry: the extra `otel`, `logs.traces`.

Where they go is told by OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT. A trace that the
caller began goes on. What was said is in no span.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from slices.errors import MissingExtra

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_PACKAGES = (
    "opentelemetry.sdk.trace",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.instrumentation.asgi",
)
_WATCHERS = "/health,/ready,/metrics"
_SAID = {
    "x-mom-expert": "gen_ai.response.model",  # the names of OpenTelemetry's conventions where it has one
    "x-mom-decision": "mom.decision",
    "x-mom-confidence": "mom.confidence",
    "x-mom-fallback": "mom.fallback",
    "x-request-id": "mom.request_id",
}


def check_installed() -> None:
    """Whether what tracing needs is there, without loading it.

    Raises:
        MissingExtra: a package of the extra `otel` is not installed.
    """
    for name in _PACKAGES:
        try:
            found = find_spec(name)
        except ModuleNotFoundError:  # not even the package that it is in
            found = None
        if found is None:
            raise MissingExtra(name, "otel")


def exporting() -> "TracerProvider":
    """Spans that are sent in the background, over HTTP.

    Raises:
        MissingExtra: a package of the extra `otel` is not installed.
    """
    check_installed()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "mom"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Traced:
    """ASGI middleware: a span from each request's first byte to its answer's last one."""

    def __init__(self, app: ASGIApp, provider: "TracerProvider") -> None:
        """Trace `app` with a provider that `exporting` gave."""
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.util.http import parse_excluded_urls

        self._app = OpenTelemetryMiddleware(
            _Told(app),
            excluded_urls=parse_excluded_urls(_WATCHERS),
            tracer_provider=provider,
            exclude_spans=["receive", "send"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app answer."""
        await self._app(scope, receive, send)


class _Told:
    """ASGI middleware within: what the answer says of itself becomes attributes of the span."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from opentelemetry.trace import get_current_span

        span = get_current_span()

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                _tell_headers(span, Headers(raw=message["headers"]))
            elif not message.get("more_body"):
                _tell_usage(span, scope)
            await send(message)

        await self._app(scope, receive, told)


def _tell_headers(span: "Span", headers: Headers) -> None:
    for name, attribute in _SAID.items():
        if name in headers:
            span.set_attribute(attribute, headers[name])


def _tell_usage(span: "Span", scope: Scope) -> None:
    usage = scope.get("mom.facts", {}).get("usage")
    if usage is not None:
        span.set_attribute("gen_ai.usage.input_tokens", usage.prompt_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", usage.tokens)
