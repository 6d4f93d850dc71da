"""The HTTP client for a running service: one GET, with its errors as sentences."""

import httpx

from router.errors import BadSettings, ExpertFailed

TIMEOUT = 10.0  # seconds
MAX_BYTES = 10_000_000  # that are read of a response


def get_text(url: str, key: str | None) -> str:
    """The text at `url`, past any proxy and following no redirect: the key is for this service alone.

    Raises:
        BadSettings: the URL or the key is invalid, or the service does not accept the key.
        ExpertFailed: nothing answers, or with another status than 200.
        ValueError: what answers does not speak HTTP, or not in UTF-8.
    """
    headers = {"authorization": f"Bearer {_checked_key(key)}"} if key else {}
    try:
        with (
            httpx.Client(trust_env=False, timeout=TIMEOUT) as client,
            client.stream("GET", _checked_url(url), headers=headers) as response,
        ):
            status, content = response.status_code, _read(response)
    except (httpx.RemoteProtocolError, httpx.DecodingError) as error:
        raise ValueError(str(error)) from None
    except httpx.TransportError as error:
        raise ExpertFailed(f"nothing answers at {url}: {error}") from None
    if status == 401:
        raise BadSettings(f"{url} needs an API key: --key KEY, as `mom key new` makes them")
    if status != 200:
        raise ExpertFailed(f"{url} answers with status {status}")
    return content.decode()


def _read(response: httpx.Response) -> bytes:
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > MAX_BYTES:
            raise ValueError(f"the response has more than {MAX_BYTES} bytes")
    return bytes(content)


def _checked_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
        valid = parsed.scheme in ("http", "https") and bool(parsed.host) and parsed.port != 0
    except httpx.InvalidURL:
        valid = False
    if not valid or not url.isprintable() or " " in url:
        raise BadSettings(f"--url {url}: expected http://HOST:PORT or https://...")
    return parsed


def _checked_key(key: str) -> str:
    if not (key.isascii() and key.isprintable()):
        raise BadSettings("--key: expected letters, digits, '-' and '_', as `mom key new` makes them")
    return key
