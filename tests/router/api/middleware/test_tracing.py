"""Spans of requests, as a collector gets them over HTTP."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider

from router.api.middleware.tracing import otlp_provider

CHAT = "/v1/chat/completions"
LAW = {"model": "auto", "messages": [{"role": "user", "content": "Is a verbal contract enforceable?"}]}
CALLER = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """What a collector on this machine was sent."""
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *attributes: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield bodies
    server.shutdown()
    thread.join()
    server.server_close()


def spans(provider: TracerProvider, bodies: list[bytes]) -> list[tuple[str, str, dict[str, object]]]:
    """Name, trace and attributes of every span that arrived."""
    assert provider.force_flush()
    found = []
    for body in bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            assert "mom" in [each.value.string_value for each in resource.resource.attributes]
            for span in (each for scope in resource.scope_spans for each in scope.spans):
                attributes = {
                    each.key: each.value.string_value or each.value.int_value for each in span.attributes
                }
                found.append((span.name, span.trace_id.hex(), attributes))
    return found


@pytest.mark.parametrize("stream", [False, True])
def test_a_span_has_the_expert_and_no_text(
    serve: Callable[..., TestClient], collected: list[bytes], stream: bool
) -> None:
    provider = otlp_provider()
    client = serve(traces=provider)
    client.get("/health")
    begun = {"traceparent": f"00-{CALLER}-b7ad6b7169203331-01", "x-request-id": "mine-1"}
    client.post(CHAT, json=LAW | {"stream": stream}, headers=begun)
    ((name, trace, attributes),) = spans(provider, collected)
    assert (name, trace) == (f"POST {CHAT}", CALLER)
    assert attributes["gen_ai.response.model"] == "lex" and attributes["mom.fallback"] == "false"
    assert (
        attributes["gen_ai.usage.output_tokens"] == 3
        and int(str(attributes["gen_ai.usage.input_tokens"])) > 30
    )
    assert attributes["mom.request_id"] == "mine-1" and attributes["http.status_code"] == 200
    assert b"contract" not in b"".join(collected) and b"I am" not in b"".join(collected)
    provider.shutdown()


def test_a_refusal_has_a_span_too(serve: Callable[..., TestClient], collected: list[bytes]) -> None:
    provider = otlp_provider()
    serve(traces=provider).post(CHAT, content=b"{")
    ((_, _, attributes),) = spans(provider, collected)
    assert attributes["http.status_code"] == 400 and "gen_ai.response.model" not in attributes
    provider.shutdown()
