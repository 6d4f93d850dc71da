"""`mom top` on a service that runs: what it reads, and what it says where there is none."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from fastapi.testclient import TestClient

from mom.topping import table, top
from mom.watching import Reading, parse, quantile, rows, totals
from router.errors import BadSettings, ExpertFailed
from router.keys import Keys
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
    top(url, None, 0.5, once=False, as_json=True)
    asking.join()
    told = json.loads(capsys.readouterr().out)
    first, *others = told["experts"]
    assert (first["expert"], first["domain"], first["decisions"], first["share"]) == ("lex", "law", 4, 1.0)
    assert first["tokens"] == 12 and first["tokens_per_second"] == pytest.approx(3 / 0.5, rel=0.5)
    assert 0 < first["first_ms"][0] <= first["first_ms"][1]
    assert {row["expert"] for row in others} == {"bio", "gen"} and others[0]["tokens_per_second"] == 0
    assert told["requests"] >= 6 and told["refused"] == 1 and told["failed"] == 0


def test_one_look_as_a_table(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    top(url, None, 0.1, once=True, as_json=False)
    told = capsys.readouterr().out
    assert all(word in told for word in ("lex", "biochem", "0 failed", "-"))


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
    with listening(serve(keys=Keys({}))) as address, pytest.raises(BadSettings, match="--key"):
        top(address, "wrong", 0.1, once=True, as_json=False)


PAGE = """
mom_decisions_total{decided_by="words",domain="law",expert="lex",fallback="false"} 6
mom_decisions_total{decided_by="words",domain="bio",expert="bio",fallback="false"} 2
mom_tokens_total{expert="lex",kind="written"} 100
mom_failovers_total{cause="retry",expert="lex"} 2
mom_failovers_total{cause="TooSlow",expert="lex"} 1
mom_requests_total{endpoint="/",status="200"} 5
mom_requests_total{endpoint="/",status="503"} 2
mom_first_token_seconds_bucket{expert="lex",le="0.1"} 5
mom_first_token_seconds_bucket{expert="lex",le="0.5"} 10
mom_first_token_seconds_bucket{expert="lex",le="+Inf"} 10
"""
EXPERTS = {"experts": [{"name": "bio", "domain": "biochem"}, {"name": "lex", "domain": "law"}]}


def test_two_readings_make_rates() -> None:
    before = parse(PAGE.replace(" 100", " 40"), 10.0)
    lex, bio = rows(EXPERTS, before, parse(PAGE, 12.0))
    assert (lex.tokens_per_second, lex.share, lex.failovers) == (30.0, 0.75, 3)
    assert lex.first_ms == (pytest.approx(100), pytest.approx(100 + 400 * 0.9))
    assert bio.first_ms == (None, None) and bio.tokens_per_second == 0
    anew = parse(PAGE.replace(" 100", " 500"), 10.0)
    assert rows(EXPERTS, anew, parse(PAGE, 12.0))[0].tokens_per_second == 50.0, "it began anew"
    assert rows(EXPERTS, None, Reading(1.0))[0].share is None
    assert totals(parse(PAGE, 0)) == {"requests": 7, "refused": 0, "failed": 2}
    assert table(rows(EXPERTS, None, before), before, "here").row_count == 2


def test_quantiles_lie_within_their_bucket() -> None:
    bounds = [(1.0, 2.0), (2.0, 2.0), (4.0, 4.0), (float("inf"), 5.0)]
    assert quantile(bounds, 0.2) == pytest.approx(0.5)
    assert quantile(bounds, 0.6) == pytest.approx(3.0)
    assert quantile(bounds, 0.99) == 4.0, "the last bound that is one"
    assert quantile([], 0.5) is None and quantile([(1.0, 0.0)], 0.5) is None
