"""`mom quantize` from the command line: prediction, embedding types, importance matrix, refusals."""

import json
import shutil
from pathlib import Path

import pytest

from mom.commands.quant_options import EmbeddingTypeOption, QatTypeOption, TypeOption
from slices import manifest
from slices.quant.imatrix_file import read_imatrix
from slices.quant.types import EMBEDDING_TYPES, LLAMA_CPP, TYPES
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
    arguments = ["quantize", str(law), "--type", "Q2_K", "--embedding-type", "Q8_0", "--json"]
    planned = parsed(*arguments, "--dry-run")
    assert sorted(law.iterdir()) == before
    assert planned["path"] == str(law / "law-Q2_K.gguf")
    made = parsed(*arguments)
    assert made["bytes"] == made["predicted_bytes"] == planned["bytes"] == Path(made["path"]).stat().st_size
    assert made["embedding_types"] == planned["embedding_types"] == {"token_embd.weight": "Q8_0"}
    assert made["bits_per_weight"] == planned["bits_per_weight"]
    assert (made["imatrix"], made["ladder"], made["healing_kept"]) == (None, [], None)
    assert manifest.read(law).quantized[0].embedding_type == "Q8_0"


def test_a_type_that_needs_an_imatrix_measures_it_on_the_domains_text(law: Path) -> None:
    made = parsed("quantize", str(law), "--type", "IQ2_M", "--json")
    assert made["imatrix"]["covered"] == made["imatrix"]["quantizable"] == 6 * 7
    assert made["imatrix"]["tokens"] > 0
    assert manifest.read(law).quantized[0].imatrix_sha256 == made["imatrix"]["sha256"]
    kept = read_imatrix(Path(made["imatrix"]["file"]))
    assert (kept.datasets, kept.sha256) == (("law",), made["imatrix"]["text_sha256"])
    assert "covers 42 of 42" in made["imatrix"]["explained"]


@pytest.fixture(scope="module")
def healed_once(cut_once: Path) -> Path:
    """That slice, healed for a few steps."""
    target = cut_once.parent / "law-healed"
    parsed("heal", str(cut_once), "--steps", "4", "--row-tokens", "32", "--lr", "0.001", "--threads", "1",
           "--hard-label-weight", "1", "--corpus", str(cut_once.parent / "text.jsonl"), "-o", str(target),
           "--compare", "never", "--json")  # fmt: skip
    return target


@pytest.mark.parametrize(
    "options", [["--type", "Q8_0"], ["--type", "Q8_0", "--max-kl", "5"], ["--type", "BF16"]]
)
def test_a_healed_slice_is_told_what_its_file_keeps(
    healed_once: Path, tmp_path: Path, options: list[str]
) -> None:
    healed = Path(shutil.copytree(healed_once, tmp_path / "law"))
    made = parsed("quantize", str(healed), *options, "--compare", "never", "--json")
    kept = made["healing_kept"]
    if made["type"] == "BF16":
        assert kept["reason"] == "no matrix is quantized whose weights before healing are known"
    else:
        assert kept["share"]["value"] == pytest.approx(1, abs=0.1)
        assert set(kept["by_kind"]) >= {"attn_q", "ffn_down"}
    assert (kept["type"], kept["source"], kept["warning"]) == (made["type"], "slice", None)
    recorded = {each.file: each.healing_kept for each in manifest.read(healed).quantized}
    assert recorded[Path(made["path"]).name] == kept


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--type", "IQ2_M", "--imatrix", "none"], "IQ2_M needs an importance matrix"),
        (["--type", "BF16", "--embedding-type", "Q4_K"], "BF16 leaves every matrix as it is"),
    ],
)
def test_refusals_are_one_line(law: Path, arguments: list[str], message: str) -> None:
    done = mom("quantize", str(law), *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(law.glob("*.gguf"))


@pytest.mark.parametrize(
    ("arguments", "choices"),
    [
        (["--imatrix", "domian"], ["domain", "none"]),
        (["--embedding-type", "Q9", "--imatrix", "domain"], ["Q4_K", "llama.cpp"]),
        (["--type", "Q9"], ["Q4_K_M", "auto"]),
        (["--compare", "often"], ["always", "never"]),
    ],
)
def test_a_value_that_is_no_choice_is_a_usage_error(
    law: Path, arguments: list[str], choices: list[str]
) -> None:
    done = mom("quantize", str(law), *arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr
    assert all(choice in done.stderr for choice in choices)
    assert not list(law.glob("*.gguf"))


def test_the_choices_are_the_types_that_there_are() -> None:
    assert [each.value for each in TypeOption] == [*TYPES, "auto"]
    assert [each.value for each in QatTypeOption] == [type for type in TYPES if type != "BF16"]
    assert [each.value for each in EmbeddingTypeOption] == [*EMBEDDING_TYPES, LLAMA_CPP]


def test_words_for_people(law: Path) -> None:
    done = mom("quantize", str(law), "--type", "Q8_0", "--imatrix", "domain")
    assert done.returncode == 0, done.stderr
    assert "law-Q8_0.gguf: Q8_0, " in done.stdout
    assert "Q8_0 ignores an importance matrix: none was measured" in done.stdout
    again = mom("quantize", str(law), "--type", "Q2_K", "--dry-run")
    assert "nothing was written; the bf16 export on the way would take" in again.stdout
