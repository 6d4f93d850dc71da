"""A page in headless Chromium (the system's), with everything that it complains of."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

WIDTHS = (400, 1400)


@contextmanager
def opened(url: str, width: int, height: int = 900) -> Iterator[tuple[Any, list[str]]]:
    """The page at `url` and the list of its errors and of all requests but the page itself.

    Skips where Chromium (Debian's package `chromium`) is not installed.
    """
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height})
        trouble: list[str] = []
        page.on(
            "console", lambda each: trouble.append(each.text) if each.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda each: trouble.append(str(each)))
        page.on("request", lambda each: None if each.url == url else trouble.append(f"asked for {each.url}"))
        page.goto(url)
        yield page, trouble
        browser.close()


def kinds_of_pixels(png: bytes) -> int:
    """How many colours a picture has: one where nothing is drawn."""
    import io

    from matplotlib.image import imread

    pixels = imread(io.BytesIO(png))
    return len({tuple(each) for each in pixels.reshape(-1, pixels.shape[-1]).tolist()})
