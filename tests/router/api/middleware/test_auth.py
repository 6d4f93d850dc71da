"""Authentication, rate limit and response headers: over HTTP, and by hand."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from router import settings
from router.api.middleware import api_keys
from router.api.middleware.auth import MAX_CLIENTS, AuthMiddleware, RateLimiter
from router.errors import BadSettings
from router.serving import lifecycle
from slices.errors import BadConfig
from tests.router.router_world import DOMAINS

ABROAD = {"origin": "http://elsewhere.example", "access-control-request-method": "GET"}


def client(key_file: Path | None = None, limiter: RateLimiter | None = None) -> TestClient:
    app = Starlette(
        routes=[Route(path, lambda request: PlainTextResponse("here")) for path in ("/health", "/v1/models")]
    )
    return TestClient(AuthMiddleware(app, api_keys.read(key_file) if key_file else None, limiter))


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_only_a_known_key_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key, other = api_keys.add(file, "ann"), api_keys.add(file, "ben")
    http = client(file)
    for good in (key, other):
        assert http.get("/v1/models", headers=bearer(good)).status_code == 200
    for bad in (
        {},
        bearer(""),
        bearer(key[:-1]),
        bearer(key + "x"),
        {"authorization": key},
        bearer(str("ä".encode())),
    ):
        answer = http.get("/v1/models", headers=bad)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"
        assert key not in answer.text
    assert http.get("/health").status_code == 200


def test_a_deleted_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = api_keys.add(file, "ann")
    api_keys.drop(file, "ann")
    assert api_keys.read(file).owner(key) is None
    with pytest.raises(BadSettings, match="no key for 'ann'"):
        api_keys.drop(file, "ann")


def test_the_file_holds_hashes_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = api_keys.add(file, "ann")
    assert key.startswith("mom-") and len(key) > 40
    assert key not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(BadSettings, match="a key for ann already"):
        api_keys.add(file, "ann")
    with pytest.raises(BadConfig, match="not usable"):
        api_keys.add(file, "../ann")
    assert api_keys.read(file).owner(key) == "ann"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"ann": 3}', b"\xff"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(damage)
    for touch in (lambda: api_keys.read(file), lambda: api_keys.add(file, "ann")):
        with pytest.raises(BadSettings, match=r"keys\.json"):
            touch()
    assert file.read_bytes() == damage


def test_a_token_bucket_refills_steadily() -> None:
    now = [0.0]
    limiter = RateLimiter(60, lambda: now[0])
    assert [limiter.acquire("ann") for _ in range(61)] == [*[0.0] * 60, pytest.approx(1.0)]
    assert limiter.acquire("ben") == 0.0
    now[0] = 0.5
    assert limiter.acquire("ann") == pytest.approx(0.5)
    now[0] = 1.0
    assert limiter.acquire("ann") == 0.0
    now[0] = 1e6
    assert [limiter.acquire("ann") for _ in range(61)][-1] == pytest.approx(1.0)


def test_many_clients_take_no_more_memory() -> None:
    limiter = RateLimiter(1)
    for client_id in range(MAX_CLIENTS + 50):
        limiter.acquire(str(client_id))
    assert len(limiter._buckets) == MAX_CLIENTS


def test_a_rate_limited_client_gets_retry_after(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    ann, ben = api_keys.add(file, "ann"), api_keys.add(file, "ben")
    http = client(file, RateLimiter(2))
    assert [http.get("/v1/models", headers=bearer(ann)).status_code for _ in range(3)] == [200, 200, 429]
    refused = http.get("/v1/models", headers=bearer(ann))
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert http.get("/v1/models", headers=bearer(ben)).status_code == 200
    assert http.get("/health").status_code == 200


def test_every_response_has_a_request_id_and_security_headers(serve: Callable[..., TestClient]) -> None:
    http = serve()
    for answer in (
        http.get("/health"),
        http.get("/nothing"),
        http.post("/v1/chat/completions", content=b"{"),
        http.options("/v1/models", headers={"origin": "http://evil", "access-control-request-method": "GET"}),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in answer.headers
        assert len(answer.headers["x-request-id"]) == 32
    assert http.get("/health", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert (
        http.get("/health", headers={"x-request-id": "a b<script>"}).headers["x-request-id"] != "a b<script>"
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "example.org"])
def test_other_hosts_need_keys(host: str, slices_root: Path) -> None:
    with pytest.raises(BadSettings, match="anyone could send requests"):
        lifecycle.check(settings.Settings(host=host, embedder="hash"), DOMAINS, listening=True)


def test_keys_allow_other_hosts_and_loopback_needs_none(slices_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    wide = settings.Settings.model_validate(
        {"host": "0.0.0.0", "embedder": "hash", "access": {"keys": str(file)}}
    )
    with pytest.raises(BadSettings, match="cannot read the keys"):
        lifecycle.check(wide, DOMAINS, listening=True)
    api_keys.add(file, "ann")
    lifecycle.check(wide, DOMAINS, listening=True)
    for host in ("127.0.0.1", "localhost", "::1"):
        lifecycle.check(settings.Settings(host=host, embedder="hash"), DOMAINS, listening=True)
