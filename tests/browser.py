"""Pages in headless Chromium (the system's), with their console errors and requests."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

WIDTHS = (400, 1400)


@contextmanager
def open_page(url: str, width: int, height: int = 900) -> Iterator[tuple[Any, list[str]]]:
    """The page at `url` and the list of its errors and of all requests but the page itself.

    Skips where Chromium (Debian's package `chromium`) is not installed.
    """
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height})
        problems: list[str] = []
        page.on(
            "console", lambda each: problems.append(each.text) if each.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda each: problems.append(str(each)))
        page.on("request", lambda each: None if each.url == url else problems.append(f"requested {each.url}"))
        page.goto(url)
        yield page, problems
        browser.close()


def count_colours(png: bytes) -> int:
    """The number of colours in a picture: one where nothing is drawn."""
    import io

    from matplotlib.image import imread

    pixels = imread(io.BytesIO(png))
    return len({tuple(each) for each in pixels.reshape(-1, pixels.shape[-1]).tolist()})
