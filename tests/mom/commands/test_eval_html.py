"""A report's page as a reader sees it: every plot drawn, nothing amiss, on a phone and on a desk."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mom.cli import app
from tests.browser import WIDTHS, count_colours, open_page
from tests.slices.heal_fixtures import parent_gemma3, slice_of, write_data

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TASKS = "text,mcq,probes,cost"


def run(*arguments: str) -> None:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, f"{done.output}\n{done.exception}"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two slices on two domains: one healed, with a ladder of types."""
    folder = tmp_path_factory.mktemp("page")
    data = write_data(folder / "data", ("biochem", "law"))
    (data / "questions").mkdir()
    questions = [
        {"question": f"What is {n} and 1?", "choices": ["salt", "sugar"], "answer": n % 2,
         "domain": "biochem", "subject": "s", "source": "here"}
        for n in range(8)
    ]  # fmt: skip
    (data / "questions" / "own.jsonl").write_text("".join(json.dumps(each) + "\n" for each in questions))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOM_HOME", str(folder / "home"))
        slice_of(parent_gemma3(folder / "parent"), folder / "swa", "swa")
        corpus = ["--corpus", str(data / "corpora" / "biochem" / "calibration.jsonl")]
        few = ["--steps", "40", "--row-tokens", "128", "--batch", "2", "--lr", "0.003", "--threads", "1"]
        run(
            "heal",
            str(folder / "swa"),
            *few,
            "--hard-label-weight",
            "0",
            *corpus,
            "-o",
            str(folder / "healed"),
        )
        run("quantize", str(folder / "healed"), "--type", "auto", "--max-kl", "0.5", "--data", str(data),
            "--threads", "1")  # fmt: skip
        out = folder / "report.html"
        run("eval", str(folder / "swa"), str(folder / "healed"), "--data", str(data), "--domain", "biochem",
            "--domain", "law", "--tasks", TASKS, "--limit", "4", "--needle", "64", "--threads", "1",
            "--html", str(out))  # fmt: skip
    return out


@pytest.mark.parametrize("width", WIDTHS)
def test_plots_are_drawn_and_nothing_is_amiss(width: int, page: Path, tmp_path: Path) -> None:
    with open_page(page.as_uri(), width) as (shown, trouble):
        figures = shown.locator("figure svg")
        assert figures.count() >= 4  # matrix, frontier, ladder, healing
        for number in range(figures.count()):
            figure = figures.nth(number)
            figure.scroll_into_view_if_needed()
            box = figure.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert box["height"] > 60
            assert count_colours(figure.screenshot()) > 20
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        text = shown.inner_text("body")
        assert "Healing of healed." in text
        assert "needle_64" in text
        shown.screenshot(path=tmp_path / f"{width}.png", full_page=True)
    assert trouble == []


def test_print_keeps_every_table_whole(page: Path) -> None:
    """Nothing scrolls on paper."""
    with open_page(page.as_uri(), 1100) as (shown, _):
        shown.emulate_media(media="print")
        cut = (
            "[...document.querySelectorAll('.wide')].filter(e => getComputedStyle(e).overflowX != 'visible')"
        )
        assert shown.evaluate(f"{cut}.length") == 0
        assert shown.pdf()[:5] == b"%PDF-"
