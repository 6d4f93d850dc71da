"""`mom quantize --type auto` from the command line: sizes, goals, the printed ladder, refusals."""

import json
from pathlib import Path

import pytest

from mom.workflows.quantize_auto import parse_size
from slices import manifest
from slices.errors import BadConfig
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
    with pytest.raises(BadConfig, match=r"such as 100MB, 2\.5GB or 96MiB"):
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
    told = parsed("quantize", str(law), "--type", "auto", "--max-kl", "0.5", "-o", str(out), "--json")
    assert told["path"] == str(out)
    assert told["bytes"] == out.stat().st_size == told["predicted_bytes"]
    assert told["ladder"][-1]["type"] == told["type"]
    assert [rung["verdict"] for rung in told["ladder"]] == ["kept"]
    assert told["ladder"][0]["kl"]["mean"] <= 0.5
    assert told["ladder"][0]["kl"]["stderr"] > 0
    assert set(told["sizes"]) == {told["type"], *told["left_out"]}
    assert set(told["left_out"].values()) == {"not needed"}
    assert "IQ2_M" not in told["sizes"]  # it needs an importance matrix
    assert told["goal"] == {"max_kl": 0.5, "budget": None}
    assert told["imatrix"] is None
    assert "the published predictor says" in told["advice"]["predictor"]


def test_people_see_a_table(law: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    before = sorted(law.iterdir())
    foretold = parsed("quantize", str(law), "--budget", "1MiB", "--dry-run", "--json")
    assert set(foretold["left_out"].values()) == {"fits"}
    size = min(foretold["sizes"].values())
    told = mom("quantize", str(law), "--budget", str(size), "--dry-run")
    assert "nothing was written or measured" in told.stdout
    assert sorted(law.iterdir()) == before
    told = mom("quantize", str(law), "--budget", str(size), "--limit", "200")
    assert told.returncode == 0, told.stderr
    for word in ("KL ± error", "over the budget", "kept", "the published predictor says", "the measurement"):
        assert word in told.stdout
    (kept,) = manifest.read(law).quantized
    assert kept.bytes == size == foretold["sizes"][kept.type]
    assert f"{kept.type}, {kept.bytes:,} bytes" in told.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--type", "auto"], "the type auto needs a goal: give --max-kl X, --budget SIZE or both"),
        (["--type", "auto", "--budget", "small"], "--budget small: expected a size such as 100MB"),
        (["--budget", "1kB"], "no type fits: expected at most 1,000 bytes, but the smallest, Q2_K, takes"),
        (["--type", "Q9", "--max-kl", "1"], "the type 'Q9' is not supported"),
    ],
)
def test_refusals_are_one_line(law: Path, arguments: list[str], message: str) -> None:
    before = sorted(law.iterdir())
    done = mom("quantize", str(law), *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(law.iterdir()) == before


def test_a_named_type_may_have_a_goal(law: Path, tmp_path: Path) -> None:
    """One rung; where it does not pass, its figures are told before the error, and nothing is written."""
    done = mom("quantize", str(law), "--type", "Q2_K", "--max-kl", "1e-9", "-o", str(tmp_path / "x.gguf"))
    assert done.returncode == 1
    rung, error = done.stderr.splitlines()
    assert rung.startswith("Q2_K: ") and " ± " in rung
    assert "the best of 1 measured is Q2_K" in error
    assert not list(tmp_path.glob("*.gguf"))
