"""`mom quantize` from the command line: prediction, tables, importance matrix, refusals."""

import json
import shutil
from pathlib import Path

import pytest

from slices import manifest
from slices.quant.imatrix_file import read_imatrix
from tests.mom.line import mom, parsed


@pytest.fixture(scope="module")
def cut_once(pico_gemma3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slice with text of its own."""
    folder = tmp_path_factory.mktemp("quantizing")
    text = folder / "text.jsonl"
    lines = [json.dumps({"text": f"The dog number {i} jumps over the lazy fox."}) for i in range(60)]
    text.write_text("\n".join(lines))
    parsed("slice", "--domain", "law", "--layers", "all", "--model", str(pico_gemma3), "--corpus", str(text),
           "-o", str(folder / "law"), "--compare", "never", "--json")  # fmt: skip
    return folder / "law"


@pytest.fixture
def law(cut_once: Path, tmp_path: Path) -> Path:
    """The test's own copy of it."""
    return Path(shutil.copytree(cut_once, tmp_path / "law"))


def test_dry_run_tells_the_size_and_writes_nothing(law: Path) -> None:
    before = sorted(law.iterdir())
    told = parsed("quantize", str(law), "--type", "Q2_K", "--tables", "Q8_0", "--dry-run", "--json")
    assert sorted(law.iterdir()) == before
    assert told["path"] == str(law / "law-Q2_K.gguf")
    made = parsed("quantize", str(law), "--type", "Q2_K", "--tables", "Q8_0", "--json")
    assert made["bytes"] == made["predicted_bytes"] == told["bytes"] == Path(made["path"]).stat().st_size
    assert made["tables"] == told["tables"] == {"token_embd.weight": "Q8_0"}
    assert made["bits_per_weight"] == told["bits_per_weight"]
    assert (made["imatrix"], made["ladder"]) == (None, [])
    assert manifest.read(law).quantized[0].tables == "Q8_0"


def test_a_type_that_needs_an_imatrix_measures_it_on_the_domains_text(law: Path) -> None:
    made = parsed("quantize", str(law), "--type", "IQ2_M", "--json")
    assert made["imatrix"]["covered"] == made["imatrix"]["quantizable"] == 6 * 7
    assert made["imatrix"]["tokens"] > 0
    assert manifest.read(law).quantized[0].imatrix_sha256 == made["imatrix"]["sha256"]
    kept = read_imatrix(Path(made["imatrix"]["file"]))
    assert (kept.datasets, kept.sha256) == (("law",), made["imatrix"]["text_sha256"])
    assert "covers 42 of 42" in made["imatrix"]["explained"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--type", "IQ2_M", "--imatrix", "none"], "IQ2_M needs an importance matrix"),
        (["--imatrix", "domian"], "--imatrix domian: expected domain or none"),
        (["--tables", "Q9", "--imatrix", "domain"], "no vocabulary table can be 'Q9'"),
        (["--type", "Q9"], "the type 'Q9' is not supported"),
    ],
)
def test_refusals_are_one_line(law: Path, arguments: list[str], message: str) -> None:
    done = mom("quantize", str(law), *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(law.glob("*.gguf"))


def test_words_for_people(law: Path) -> None:
    told = mom("quantize", str(law), "--type", "Q8_0", "--imatrix", "domain")
    assert told.returncode == 0, told.stderr
    assert "law-Q8_0.gguf: Q8_0, " in told.stdout
    assert "Q8_0 takes no heed of an importance matrix: none was measured" in told.stdout
    again = mom("quantize", str(law), "--type", "Q2_K", "--dry-run")
    assert "nothing was written; the bf16 export on the way would take" in again.stdout
