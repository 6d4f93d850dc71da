"""`mom top` on a service that runs: its table and JSON, and its errors where there is none."""

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO

import httpx
import pytest
from fastapi.testclient import TestClient
from rich.console import Console

from mom.display import console
from mom.display.service_stats import parse_metrics
from mom.workflows.top import top
from router.api.middleware.api_keys import ApiKeys
from router.errors import BadSettings, ExpertFailed
from slices.errors import MissingExtra
from tests.mom.line import mom_alone
from tests.router.conftest import listening

LAW = {"model": "auto", "messages": [{"role": "user", "content": "Is a verbal contract enforceable?"}]}


@pytest.fixture
def url(serve: Callable[..., TestClient]) -> Iterator[str]:
    with listening(serve()) as address:
        yield address


def test_one_look_as_json(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        httpx.post(f"{url}/v1/chat/completions", json=LAW)
    httpx.post(f"{url}/v1/chat/completions", json={})
    asking = threading.Timer(0.1, httpx.post, [f"{url}/v1/chat/completions"], {"json": LAW})
    asking.start()
    top(url, None, 2.0, once=False, as_json=True)
    asking.join()
    output = json.loads(capsys.readouterr().out)
    first, *others = output["experts"]
    assert (first["expert"], first["domain"], first["decisions"], first["routed_share"]) == (
        "lex",
        "law",
        4,
        1.0,
    )
    assert first["completion_tokens"] == 12 and first["tokens_per_second"] == pytest.approx(3 / 2.0, rel=0.5)
    assert 0 < first["time_to_first_token_ms"][0] <= first["time_to_first_token_ms"][1]
    assert {row["expert"] for row in others} == {"bio", "gen"} and others[0]["tokens_per_second"] == 0
    assert output["requests"] >= 6 and output["client_errors"] == 1 and output["server_errors"] == 0


def test_one_look_as_a_table(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    top(url, None, 0.1, once=True, as_json=False)
    output = capsys.readouterr().out
    assert all(word in output for word in ("lex", "biochem", "0 server errors", "-"))


def test_where_nothing_listens_or_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExpertFailed, match="nothing answers at http://127"):
        top("http://127.0.0.1:9", None, 0.1, once=True, as_json=False)
    with pytest.raises(BadSettings, match="expected http"):
        top("file:///etc", None, 0.1, once=True, as_json=False)

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'["hello"]')

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(ExpertFailed, match="no service of mom"):
        top(f"http://127.0.0.1:{server.server_port}", None, 0.1, once=True, as_json=False)
    server.shutdown()
    server.server_close()


def test_a_key_is_asked_for(serve: Callable[..., TestClient]) -> None:
    with listening(serve(keys=ApiKeys({}))) as address, pytest.raises(BadSettings, match="--key"):
        top(address, "wrong", 0.1, once=True, as_json=False)


@contextmanager
def answering(raw: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers everything with these bytes; its address, and the requests that it received."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            while True:
                caller, _ = server.accept()
                with caller:
                    received.append(caller.recv(4096))
                    if received[-1] == b"stop":
                        return
                    caller.sendall(raw)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", received
        finally:
            with socket.create_connection(server.getsockname()) as last:
                last.sendall(b"stop")
            thread.join(10)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        b'HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n["experts"]',
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n\xff",
    ],
)
def test_what_speaks_otherwise_is_no_service_of_mom(raw: bytes) -> None:
    with answering(raw) as (address, _), pytest.raises(ExpertFailed, match="is no service of mom"):
        top(address, None, 0.1, once=True, as_json=False)


@pytest.mark.parametrize(
    "url", ["http://", "http://127.0.0.1:port", "http://127.0.0.1:8000/\n", "http://a b"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(BadSettings, match="expected http"):
        top(url, None, 0.1, once=True, as_json=False)


def test_a_key_goes_to_the_service_alone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") as (other, received):
        moved = f"HTTP/1.1 302 Found\r\nlocation: {other}/experts\r\ncontent-length: 0\r\n\r\n".encode()
        with answering(moved) as (address, first), pytest.raises(ExpertFailed, match="status 302"):
            top(address, "secret", 0.1, once=True, as_json=False)
        assert b"Bearer secret" in first[0]
        monkeypatch.setenv("http_proxy", other)
        top(url, "secret", 0.1, once=True, as_json=True)
        assert received == []
    with pytest.raises(BadSettings, match="--key: expected") as caught:
        top(url, "sec\nret", 0.1, once=True, as_json=True)
    assert "ret" not in str(caught.value)


def test_the_table_keeps_up_until_it_is_left(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, waits = StringIO(), iter([False, False])

    @contextmanager
    def scripted() -> Iterator[Callable[[float], bool]]:
        def left(seconds: float) -> bool:
            httpx.post(f"{url}/v1/chat/completions", json=LAW)
            for ended in waits:
                return ended
            raise KeyboardInterrupt

        yield left

    monkeypatch.setattr(console, "out", Console(file=shown, force_terminal=True, width=80, height=20))
    monkeypatch.setattr("mom.workflows.top.quit_on_q", scripted)
    top(url, None, 0.1, once=False, as_json=False)
    chosen = [line.split()[3] for line in shown.getvalue().splitlines() if " lex " in line]
    assert [int(each) for each in chosen] == [0, 1, 2] and "…" not in shown.getvalue()


def test_no_serve_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command loads without it, and says what is missing once it is needed."""
    done = mom_alone("top", "--url", "http://127.0.0.1:9", hide="prometheus_client")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "nothing answers" in done.stderr
    monkeypatch.setitem(sys.modules, "prometheus_client.parser", None)
    with pytest.raises(MissingExtra, match=r"mom-slicer\[serve\]"):
        parse_metrics("mom_http_requests_total 1\n", 0.0)
