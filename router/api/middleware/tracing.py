"""OpenTelemetry tracing: a span for each request (extra `otel`, setting `logs.traces`).

The exporter is configured by OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT. The trace
context of the caller is continued. No span holds the text of a prompt or an answer.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from router.api.middleware.access_log import FIELDS
from slices.errors import MissingExtra

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_PACKAGES = (
    "opentelemetry.sdk.trace",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.instrumentation.asgi",
)
_PROBES = "/health,/ready,/metrics"
_ATTRIBUTES = {
    "x-mom-expert": "gen_ai.response.model",  # of OpenTelemetry's semantic conventions
    "x-mom-decision": "mom.decision",
    "x-mom-confidence": "mom.confidence",
    "x-mom-fallback": "mom.fallback",
    "x-request-id": "mom.request_id",
}


def check_installed() -> None:
    """Check that the packages of tracing are installed, without importing them.

    Raises:
        MissingExtra: a package of the extra `otel` is not installed.
    """
    for name in _PACKAGES:
        try:
            spec = find_spec(name)
        except ModuleNotFoundError:  # not even the package that it is in
            spec = None
        if spec is None:
            raise MissingExtra(name, "otel")


def otlp_provider() -> "TracerProvider":
    """A tracer provider that exports spans in the background, over HTTP.

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


class TracingMiddleware:
    """ASGI middleware with a span from each request's first byte to its response's last one."""

    def __init__(self, app: ASGIApp, provider: "TracerProvider") -> None:
        """Trace `app` with `otlp_provider()` or another provider."""
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.util.http import parse_excluded_urls

        self._app = OpenTelemetryMiddleware(
            _AttributesMiddleware(app),
            excluded_urls=parse_excluded_urls(_PROBES),
            tracer_provider=provider,
            exclude_spans=["receive", "send"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app."""
        await self._app(scope, receive, send)


class _AttributesMiddleware:
    """ASGI middleware that sets the span's attributes from the response's headers and token counts."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from opentelemetry.trace import get_current_span

        span = get_current_span()

        async def send_and_set_attributes(message: Message) -> None:
            if message["type"] == "http.response.start":
                _set_header_attributes(span, Headers(raw=message["headers"]))
            elif not message.get("more_body"):
                _set_usage_attributes(span, scope)
            await send(message)

        await self._app(scope, receive, send_and_set_attributes)


def _set_header_attributes(span: "Span", headers: Headers) -> None:
    for name, attribute in _ATTRIBUTES.items():
        if name in headers:
            span.set_attribute(attribute, headers[name])


def _set_usage_attributes(span: "Span", scope: Scope) -> None:
    response = scope.get(FIELDS, {}).get("response")
    if response is not None:
        span.set_attribute("gen_ai.usage.input_tokens", response.prompt_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", response.completion_tokens)
