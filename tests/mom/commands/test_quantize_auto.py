"""`mom quantize --type auto` from the command line: sizes, goals, the printed ladder, refusals."""

import json
from pathlib import Path

import pytest
import typer

from mom.commands.options import parse_size
from slices import manifest
from tests.mom.line import mom, parsed


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("1", 1),
        ("100MB", 10**8),
        ("2.5 GB", 2_500_000_000),
        ("96MiB", 96 * 2**20),
        ("1g", 10**9),
        ("7kb", 7000),
    ],
)
def test_sizes_as_people_write_them(text: str, nbytes: int) -> None:
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "MB", "-1GB", "1e9", "1TB", "1,5GB", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"such as 100MB, 2\.5GB or 96MiB"):
        parse_size(text)


@pytest.fixture(scope="module")
def law(pico_gemma3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slice with text of its own."""
    folder = tmp_path_factory.mktemp("law")
    lines = [json.dumps({"text": f"The dog number {i} jumps over the lazy fox."}) for i in range(60)]
    (folder / "text.jsonl").write_text("\n".join(lines))
    parsed("slice", "--domain", "law", "--layers", "all", "--model", str(pico_gemma3),
           "--corpus", str(folder / "text.jsonl"), "-o", str(folder / "slice"), "--json")  # fmt: skip
    return folder / "slice"


def test_auto_keeps_one_file_and_tells_of_all(law: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    report = parsed("quantize", str(law), "--type", "auto", "--max-kl", "0.5", "-o", str(out), "--json")
    assert report["path"] == str(out)
    assert report["bytes"] == out.stat().st_size == report["predicted_bytes"]
    assert report["ladder"][-1]["type"] == report["type"]
    assert [rung["verdict"] for rung in report["ladder"]] == ["kept"]
    assert report["ladder"][0]["kl"]["mean"] <= 0.5
    assert report["ladder"][0]["kl"]["stderr"] > 0
    assert set(report["sizes"]) == {report["type"], *report["left_out"]}
    assert set(report["left_out"].values()) == {"not needed"}
    assert "IQ2_M" not in report["sizes"]  # it needs an importance matrix
    assert report["goal"] == {"max_kl": 0.5, "budget": None}
    assert report["imatrix"] is None
    assert "the published predictor says" in report["advice"]["predictor"]


def test_people_see_a_table(law: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    before = sorted(law.iterdir())
    planned = parsed("quantize", str(law), "--budget", "1MiB", "--dry-run", "--json")
    assert set(planned["left_out"].values()) == {"fits"}
    size = min(planned["sizes"].values())
    report = mom("quantize", str(law), "--budget", str(size), "--dry-run")
    assert "nothing was written or measured" in report.stdout
    assert sorted(law.iterdir()) == before
    report = mom("quantize", str(law), "--budget", str(size), "--max-bytes", "200")
    assert report.returncode == 0, report.stderr
    for word in ("KL ± error", "over the budget", "kept", "the published predictor says", "the measurement"):
        assert word in report.stdout
    (kept,) = manifest.read(law).quantized
    assert kept.bytes == size == planned["sizes"][kept.type]
    assert f"{kept.type}, {kept.bytes:,} bytes" in report.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--type", "auto"], "the type auto needs a goal: give --max-kl X, --budget SIZE or both"),
        (["--budget", "1kB"], "no type fits: expected at most 1,000 bytes, but the smallest, Q2_K, takes"),
    ],
)
def test_refusals_are_one_line(law: Path, arguments: list[str], message: str) -> None:
    before = sorted(law.iterdir())
    done = mom("quantize", str(law), *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(law.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--type", "auto", "--budget", "small"], "'small': expected a size such as 100MB"),
        (["--type", "Q9", "--max-kl", "1"], "'Q9' is not one of"),
    ],
)
def test_values_that_cannot_be_are_usage_errors(
    law: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = mom("quantize", str(law), *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_named_type_may_have_a_goal(law: Path, tmp_path: Path) -> None:
    """One rung; where it does not pass, its figures are printed before the error, and nothing is written."""
    done = mom("quantize", str(law), "--type", "Q2_K", "--max-kl", "1e-9", "-o", str(tmp_path / "x.gguf"))
    assert done.returncode == 1
    rung, error = done.stderr.splitlines()
    assert rung.startswith("Q2_K: ") and " ± " in rung
    assert "the best of 1 measured is Q2_K" in error
    assert not list(tmp_path.glob("*.gguf"))
