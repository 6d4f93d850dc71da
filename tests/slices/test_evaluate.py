"""Bits per byte, their error and their record, against numbers worked out by hand."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from slices import manifest
from slices.errors import BadConfig, NotFound, RunFailed
from slices.measure.evaluate import Estimate, Subject, evaluate, ratio, record, subjects
from slices.measure.heldout import WINDOW_BYTES, cut, cut_heldout, read_heldout
from slices.quant.quantize import quantize
from slices.runtime import Runtime, ScriptedRuntime
from tests.slices.gguf_fixtures import FULL, SAMPLES, SLIDING, write_gemma3, write_manifest

DOCUMENTS = ["The quick brown fox", "jumps over", "the lazy dog."]


@dataclass
class Biased(ScriptedRuntime):
    """Spends `bits` on each byte, and one more on each "x"."""

    bits: float = 2.0

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        spent = [self.bits + (token == ord("x")) for token in tokens[1:]]
        return -np.log(2) * np.array(spent, dtype=np.float64)


def fake(folder: Path, name: str = "fake") -> Subject:
    return Subject(name, folder)


def score(folder: Path, texts: dict[str, list[str]], runtime: Runtime, limit: int | None = None) -> Estimate:
    report = evaluate([fake(folder)], texts, limit, opener=lambda subject, threads: runtime)
    return report.slices["fake"].domains["d"].bits_per_byte


def test_uniform_bytes_cost_eight_bits_exactly(tmp_path: Path) -> None:
    found = score(tmp_path, {"d": ["é🙂 plain", "more text" * 900]}, ScriptedRuntime())
    assert found.value == pytest.approx(8.0, abs=1e-12)
    assert found.stderr == pytest.approx(0.0, abs=1e-12)


def test_value_and_error_by_hand(tmp_path: Path) -> None:
    """Documents of 4, 2 and 2 bytes and 10, 4 and 6 bits: 20 / 8 = 2.5 bits a byte; the residuals
    10 - 2.5*4 = 0, 4 - 2.5*2 = -1, 6 - 2.5*2 = 1 give sqrt(3/2 * 2) / 8."""
    found = score(tmp_path, {"d": ["xxab", "ab", "xx"]}, Biased())
    assert found.value == pytest.approx(2.5)
    assert found.stderr == pytest.approx(math.sqrt(3) / 8)


def test_difference_is_taken_document_by_document(tmp_path: Path) -> None:
    runtimes: dict[str, Runtime] = {"low": Biased(bits=2), "high": Biased(bits=3)}
    low, high = fake(tmp_path, "low"), fake(tmp_path, "high")
    texts = {"d": ["xxab", "ab", "xx"]}
    report = evaluate([low, high], texts, against=low, opener=lambda s, threads: runtimes[s.name])
    assert list(report.slices) == ["low", "high"]
    assert report.slices["low"].domains["d"].against is None
    difference = report.slices["high"].domains["d"].against
    assert difference == Estimate(pytest.approx(1.0), pytest.approx(0.0, abs=1e-9))
    assert report.slices["high"].domains["d"].bits_per_byte.stderr > 0.2


def test_ratio_matches_resampling() -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(50, 500, 200).astype(float)
    bits = sizes * random.normal(2, 0.5, 200)
    again = [random.integers(0, 200, 200) for _ in range(2000)]
    spread = np.std([bits[rows].sum() / sizes[rows].sum() for rows in again])
    assert ratio(bits, sizes).stderr == pytest.approx(spread, rel=0.1)


@pytest.mark.parametrize(
    "text", ["word " * 2000, "é" * 5000, "a" * 4000 + " b", " \n" * 3000, "🙂 x" * 999, "a"]
)
def test_windows_join_to_the_text(text: str) -> None:
    parts = list(cut(text))
    assert "".join(parts) == text
    assert all(1 <= len(part.encode()) <= WINDOW_BYTES for part in parts)
    assert len(parts) <= 1 + len(text.encode()) / (WINDOW_BYTES - 6)


def test_windows_keep_words_whole_with_the_space_before_them() -> None:
    assert list(cut("one two three", 8)) == ["one two", " three"]
    assert list(cut("one two\nthree", 7)) == ["one two", "\nthree"]
    assert list(cut("abcdefgh i", 4)) == ["abcd", "efgh", " i"]


def test_sample_is_fixed_by_the_text_and_spans_documents() -> None:
    documents = [f"document {n}. " + f"word{n} " * 1000 for n in range(20)]
    some = cut_heldout(documents, 20_000)
    assert some == cut_heldout(documents, 20_000)
    assert 15_000 < some.nbytes <= 20_000
    assert some.documents > 5
    backwards = cut_heldout(documents[::-1], 20_000)
    assert {w.text for w in backwards.windows} == {w.text for w in some.windows}
    assert backwards.sha256 == some.sha256
    assert cut_heldout(documents, 1).documents == 2
    assert cut_heldout(documents).nbytes == sum(len(d.encode()) for d in documents)


def test_one_document_has_no_error(tmp_path: Path) -> None:
    for texts in (["only one"], ["one", ""], []):
        with pytest.raises(BadConfig, match="domain 'd': measuring needs at least two documents"):
            score(tmp_path, {"d": texts}, ScriptedRuntime())


def test_documents_of_one_byte_count(tmp_path: Path) -> None:
    assert score(tmp_path, {"d": ["a", "b"]}, ScriptedRuntime()).value == pytest.approx(8)


class Mute(ScriptedRuntime):
    """A tokenizer that loses all text."""

    def encode(self, text: str) -> list[int]:
        return [256]


class Broken(ScriptedRuntime):
    """A model whose weights are no numbers."""

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        return np.full(len(tokens) - 1, np.nan)


@pytest.mark.parametrize(
    ("runtime", "message"), [(Mute(), "gave 1 tokens"), (Broken(), "no finite probability")]
)
def test_bad_scores_stop_the_run(runtime: Runtime, message: str, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=f"fake on d: .*{message}"):
        score(tmp_path, {"d": DOCUMENTS}, runtime)


def test_names_must_differ(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="share a name: a, a"):
        evaluate([Subject("a", tmp_path), Subject("a", tmp_path / "b")], {"d": DOCUMENTS})


def write_heldout(data: Path, domain: str, content: str) -> Path:
    path = data / "corpora" / domain / "heldout.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")
    return path


def test_data_is_read_by_lines_not_by_unicode_lines(tmp_path: Path) -> None:
    write_heldout(tmp_path, "law", '{"text": "a\u2028b", "source": "s"}\n{"text": "c"}\n\n{"text": ""}\n')
    assert read_heldout(tmp_path) == {"law": ["a\u2028b", "c"]}
    with pytest.raises(NotFound, match=r"corpora/maths/heldout\.jsonl; its domains: law"):
        read_heldout(tmp_path, ["maths"])
    with pytest.raises(NotFound, match="its domains: \\(none\\)"):
        read_heldout(tmp_path / "corpora")


@pytest.mark.parametrize("line", ["{", "[]", '{"text": 1}', '{"txt": "a"}', '{"text": "\\ud800"}'])
def test_bad_line_is_named(line: str, tmp_path: Path) -> None:
    path = write_heldout(tmp_path, "law", '{"text": "a"}\n' + line + "\n")
    with pytest.raises(BadConfig, match=f"{path}, line 2"):
        read_heldout(tmp_path, ["law"])


def test_empty_file_is_named(tmp_path: Path) -> None:
    write_heldout(tmp_path, "law", "\n")
    with pytest.raises(NotFound, match=r"law/heldout\.jsonl holds no text"):
        read_heldout(tmp_path)


def test_slice_and_its_files_are_measured_and_recorded(tmp_path: Path) -> None:
    folder = write_gemma3(tmp_path / "pico", [SLIDING, FULL])
    write_manifest(folder, "pico")
    quantize(folder, "BF16", threads=1)
    quantize(folder, "Q2_K", threads=1)
    plain = write_gemma3(tmp_path / "parent", [SLIDING, FULL])
    found = [*subjects(folder), *subjects(plain)]
    assert [s.name for s in found] == ["pico", "pico-BF16", "pico-Q2_K", "parent"]
    assert found[0].nbytes == (folder / "model.safetensors").stat().st_size
    seen: list[tuple[str, int, int]] = []
    texts = {"demo": list(SAMPLES.values()), "law": DOCUMENTS}
    report = evaluate(found, texts, against=found[3], threads=1, progress=lambda *step: seen.append(step))
    assert list(report.slices) == ["parent", "pico", "pico-BF16", "pico-Q2_K"]
    assert seen[0] == ("parent on demo", 1, 7)
    assert len(seen) == 4 * 10
    by_name = {name: row.domains["demo"] for name, row in report.slices.items()}
    assert by_name["pico"].bits_per_byte == by_name["parent"].bits_per_byte  # the same random weights
    assert by_name["pico"].against == Estimate(0.0, 0.0)
    assert by_name["pico-BF16"].bits_per_byte.value == pytest.approx(
        by_name["pico"].bits_per_byte.value, rel=2e-3
    )
    apart = {name: result.against.stderr for name, result in by_name.items() if result.against}
    assert apart["pico-Q2_K"] > 3 * apart["pico-BF16"]
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["schema"] == 1
    assert set(document["slices"]["pico-Q2_K"]) >= {"bytes", "tokens_per_second", "domains"}
    assert set(document["slices"]["pico-Q2_K"]["domains"]["law"]["bits_per_byte"]) == {"value", "stderr"}
    for _ in range(2):  # the second time over the first
        for subject in found:
            record(subject, report)
    measured = manifest.read(folder).measurements
    assert [(m.of, m.domain) for m in measured] == [
        (of, domain) for of in ("bf16", "pico-BF16.gguf", "pico-Q2_K.gguf") for domain in ("demo", "law")
    ]
    assert measured[0].value == by_name["pico"].bits_per_byte.value
    assert not (plain / manifest.FILE).exists()
    assert [s.name for s in subjects(folder / "pico-Q2_K.gguf")] == ["pico-Q2_K"]
    with pytest.raises(NotFound, match="neither weights nor a GGUF"):
        subjects(tmp_path)
