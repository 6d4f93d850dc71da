"""The web page at `/`: its security policy, its data, and a person using it in Chromium."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from slices.manifest import BITS, PARENT
from slices.runtimes.scripted import ScriptedRuntime
from tests.browser import WIDTHS
from tests.router.conftest import listening
from tests.router.router_world import write_slice

MARKED = "Often, <b>but</b> hard to prove."


def measured(of: str, value: float) -> dict[str, object]:
    return {"variant": of, "domain": "law", "metric": BITS, "value": value, "stderr": 0.1, "data": "d"}


def test_the_policy_allows_the_pages_own_script_alone(serve: Callable[..., TestClient]) -> None:
    answer = serve().get("/")
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and policy.count("'sha256-") == 2
    assert "unsafe" not in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert " on" not in "".join(line for line in answer.text.splitlines() if line.startswith("<button"))


def test_experts_with_their_measurements(serve: Callable[..., TestClient], slices_root: Path) -> None:
    write_slice(slices_root, "poor", "law", created="2026-06-01T00:00:00+00:00",
                measurements=[measured("bf16", 2.0), measured(PARENT, 1.6)])  # fmt: skip
    write_slice(slices_root, "new", "general", created="2026-06-01T00:00:00+00:00",
                measurements=[measured("bf16", 1.0)])  # fmt: skip
    found = serve().get("/experts").json()
    assert found["generalist"] == "new"
    shown = {each["name"]: each for each in found["experts"]}
    assert shown["poor"]["quality"] == [
        {"domain": "law", "value": 2.0, "relative_to_parent": pytest.approx(0.25)}
    ]
    cost = 1 + (0.1**2 + (2 * 0.1) ** 2) ** 0.5  # 2.0 against 1.0, and one standard error
    assert shown["poor"]["disabled_reason"] == f"its cost there is {cost:+.1%}, relative to the generalist"
    assert shown["bio"] == {
        "name": "bio", "domain": "biochem", "type": "bf16", "bytes": 4, "quality": [],
        "disabled_reason": None, "running": 0,
    }  # fmt: skip


@pytest.fixture
def page_url(serve: Callable[..., TestClient]) -> Iterator[str]:
    """The page of a service with scripted experts on a real socket."""
    names = ("bio", "gen", "lex")
    with listening(
        serve(**{name: ScriptedRuntime({"verbal": MARKED}, f"I am {name}.") for name in names})
    ) as url:
        yield f"{url}/"


@contextmanager
def open_page(url: str, width: int, scheme: str = "light") -> Iterator[tuple[Any, list[str]]]:
    """The page in Chromium and the problems in its console."""
    import shutil

    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        problems: list[str] = []
        page.on("console", lambda each: problems.append(each.text) if each.type != "log" else None)
        page.on("pageerror", lambda each: problems.append(str(each)))
        page.goto(url)
        yield page, problems
        browser.close()


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_prompt_by_keyboard_shows_the_answering_expert(width: int, page_url: str, tmp_path: Path) -> None:
    with open_page(page_url, width) as (page, problems):
        page.wait_for_selector("#experts tr")
        page.keyboard.press("Tab")
        page.keyboard.type("Is a verbal contract enforceable?")
        page.select_option("#compare", "bio")
        page.focus("#prompt")
        page.keyboard.press("Control+Enter")
        page.locator("#status", has_text="done").wait_for(timeout=20_000)
        answers = page.locator(".answer")
        assert sorted(answers.locator("h2").all_inner_texts()) == ["Answered by bio", "Answered by lex"]
        assert MARKED in page.inner_text("#answers")
        assert page.locator(".text b").count() == 0
        assert "lex: law at" in page.inner_text("#reason")
        assert page.locator("#probabilities tr").count() == 4
        assert page.locator("#experts tr").count() == 3
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=tmp_path / f"{width}.png", full_page=True)
        assert problems == []


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_an_error_is_shown(page_url: str) -> None:
    with open_page(page_url, 800, "dark") as (page, _):
        page.wait_for_selector("#experts tr")
        page.fill("#prompt", "x")
        page.fill("#max-tokens", "1")
        page.evaluate("document.getElementById('model').add(new Option('gone', 'gone', true, true))")
        page.click("#send")
        page.wait_for_selector(".error")
        assert "there is no model 'gone'" in page.inner_text(".answer")


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(width: int, scheme: str, page_url: str) -> None:
    """axe-core's rules of WCAG 2.2 and good practice, before and after an answer."""
    from axe_playwright_python.sync_playwright import Axe

    with open_page(page_url, width, scheme) as (page, _):
        page.wait_for_selector("#experts tr")
        found = Axe().run(page).response["violations"]
        page.fill("#prompt", "Is a verbal contract enforceable?")
        page.select_option("#compare", "bio")
        page.click("#send")
        page.locator("#status", has_text="done").wait_for(timeout=20_000)
        found += Axe().run(page).response["violations"]
        assert [(each["id"], each["impact"], each["nodes"][0]["html"]) for each in found] == []
