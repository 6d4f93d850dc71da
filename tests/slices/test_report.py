"""Reports: bits per byte, errors and differences by hand; what is kept, compared, flagged and recorded."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from slices import manifest
from slices.errors import BadConfig, NotFound, RunFailed
from slices.measure.estimate import Estimate, ratio
from slices.quant.quantize import quantize
from slices.report.as_json import SCHEMA, as_json
from slices.report.controls import Controls, controls
from slices.report.cost import measure_cost
from slices.report.page import Figure, page
from slices.report.pairs import pair
from slices.report.record import record
from slices.report.run import Report, evaluate
from slices.report.subject import Subject, subjects
from slices.report.wish import TASKS, Wish, parse_tasks
from slices.runtime import Runtime
from slices.runtimes.scripted import ScriptedRuntime
from slices.runtimes.softmax import log_softmax
from slices.tasks.questions import Question
from tests.slices.gguf_fixtures import FULL, SAMPLES, SLIDING, write_gemma3, write_manifest

DOCUMENTS = ["The quick brown fox", "jumps over", "the lazy dog."]


@dataclass
class Biased(ScriptedRuntime):
    """Spends `bits` on each byte, and one more on each "x"."""

    bits: float = 2.0

    def distributions(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        for token in tokens[1:]:
            row = np.full((1, 257), -self.bits * math.log(2), np.float32)
            row[0, ord("x")] -= math.log(2)
            yield row
            del token


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOM_HOME", str(tmp_path / "home"))


def fake(folder: Path, name: str = "fake") -> Subject:
    """A model of its own file, which no runtime here reads."""
    (folder / f"{name}.gguf").write_text(name)
    return Subject(name, folder, f"{name}.gguf")


def score(folder: Path, texts: dict[str, list[str]], runtime: Runtime, limit: int | None = None) -> Estimate:
    report = evaluate([fake(folder)], texts, Wish(limit=limit), opener=lambda subject, wish: runtime)
    cell = report.rows["fake"].cells["d"]
    return ratio(np.array(cell.bits), np.array(cell.bytes))


def test_uniform_bytes_cost_eight_bits_exactly(tmp_path: Path) -> None:
    found = score(tmp_path, {"d": ["é🙂 plain", "more text" * 900]}, ScriptedRuntime())
    assert found.value == pytest.approx(8.0, abs=1e-6)
    assert found.stderr == pytest.approx(0.0, abs=1e-6)


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
    report = evaluate([low, high], texts, Wish(), low, opener=lambda s, wish: runtimes[s.name])
    found = told(report)["slices"]
    assert list(found) == ["low", "high"]
    assert found["low"]["domains"]["d"]["against"] is None
    difference = found["high"]["domains"]["d"]["against"]
    assert [difference[key] for key in ("value", "low", "high", "n")] == pytest.approx([1, 1, 1, 3])
    assert found["high"]["domains"]["d"]["bits_per_byte"]["stderr"] > 0.2
    assert "no KL to low" in found["high"]["notes"][0]  # neither has a tokenizer to compare


def test_ratio_matches_resampling() -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(50, 500, 200).astype(float)
    bits = sizes * random.normal(2, 0.5, 200)
    again = [random.integers(0, 200, 200) for _ in range(2000)]
    spread = np.std([bits[rows].sum() / sizes[rows].sum() for rows in again])
    assert ratio(bits, sizes).stderr == pytest.approx(spread, rel=0.1)


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

    def distributions(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        yield np.full((len(tokens) - 1, 257), np.nan, np.float32)


@pytest.mark.parametrize(
    ("runtime", "message"), [(Mute(), "gave 1 tokens"), (Broken(), "no finite probability")]
)
def test_bad_scores_stop_the_run(runtime: Runtime, message: str, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=f"fake on d:? .*{message}"):
        score(tmp_path, {"d": DOCUMENTS}, runtime)


def test_names_must_differ(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="share a name: a, a"):
        evaluate([Subject("a", tmp_path), Subject("a", tmp_path / "b")], {"d": DOCUMENTS}, Wish())


def told(report: Report) -> dict[str, Any]:
    """A report's JSON, through text."""
    return json.loads(json.dumps(as_json(report, Controls({}, {}, {}), {}, {}, {}, "1.0"), allow_nan=False))  # type: ignore[no-any-return]


def pico(folder: Path, domain: str = "law") -> Path:
    write_gemma3(folder, [SLIDING, FULL])
    write_manifest(folder, folder.name)
    manifest.write(folder, manifest.read(folder).model_copy(update={"domain": domain}))
    return folder


def test_slice_and_its_files_are_measured_and_recorded(tmp_path: Path) -> None:
    folder = pico(tmp_path / "pico")
    quantize(folder, "BF16", threads=1)
    quantize(folder, "Q2_K", threads=1)
    plain = write_gemma3(tmp_path / "parent", [SLIDING, FULL])
    measured = [*subjects(folder), *subjects(plain)]
    assert [s.name for s in measured] == ["pico", "pico-BF16", "pico-Q2_K", "parent"]
    assert measured[0].nbytes == (folder / "model.safetensors").stat().st_size
    seen: list[tuple[str, int, int]] = []
    texts = {"demo": list(SAMPLES.values()), "law": DOCUMENTS}
    wish = Wish(threads=1)
    report = evaluate(measured, texts, wish, measured[3], progress=lambda *step: seen.append(step))
    assert list(report.rows) == ["parent", "pico", "pico-BF16", "pico-Q2_K"]
    assert seen[0] == ("parent on demo", 1, 7)
    found = told(report)
    cells = {name: row["domains"]["demo"] for name, row in found["slices"].items()}
    assert cells["pico"]["bits_per_byte"] == cells["parent"]["bits_per_byte"]  # the same random weights
    assert cells["pico"]["kl"] == dict.fromkeys(("mean", "stderr", "median", "p99", "p999", "max"), 0)
    assert (cells["pico"]["against"]["value"], cells["pico"]["against"]["p"]) == (0, 1)
    assert cells["pico"]["same_top1"]["value"] == cells["pico"]["perplexity_ratio"]["value"] == 1
    assert "kl" not in cells["parent"]
    assert 0 < cells["pico-BF16"]["kl"]["mean"] < 0.05 * cells["pico-Q2_K"]["kl"]["mean"]
    assert found["schema"] == SCHEMA
    assert set(found["slices"]["pico-Q2_K"]) >= {"bytes", "tokens_per_second", "domains", "verdict"}
    for _ in range(2):  # the second time over the first
        record(report, "1.0")
    recorded = manifest.read(folder).measurements
    files = ("bf16", "pico-BF16.gguf", "pico-Q2_K.gguf")
    of_text = {"bits_per_byte", "kl", "same_top1", "lost_mass"}
    assert {(m.of, m.domain, m.metric) for m in recorded} == {
        *((of, domain, metric) for of in files for domain in ("demo", "law") for metric in of_text),
        *((of, "", "tokens_per_second") for of in files),
        *(("parent", domain, "bits_per_byte") for domain in ("demo", "law")),
    }
    assert len(recorded) == 3 * (2 * 4 + 1) + 2
    assert {m.code for m in recorded} == {"1.0"}
    assert {m.data for m in recorded if m.domain == "law"} == {report.texts["law"].sha256}
    assert not (plain / manifest.FILE).exists()
    assert [s.name for s in subjects(folder / "pico-Q2_K.gguf")] == ["pico-Q2_K"]
    with pytest.raises(NotFound, match="neither weights nor a GGUF"):
        subjects(tmp_path)


def test_an_interrupted_run_goes_on_and_a_finished_one_begins_anew(tmp_path: Path) -> None:
    subject, texts = fake(tmp_path), {"a": ["one two", "three"], "b": ["four", "five six"]}
    opened: list[str] = []

    class Mortal(Biased):
        def distributions(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
            if bytes(tokens[1:]).startswith(b"five") and len(opened) == 1:
                raise KeyboardInterrupt
            return super().distributions(tokens)

    def opener(subject: Subject, wish: Wish) -> Runtime:
        opened.append(subject.name)
        return Mortal()

    with pytest.raises(KeyboardInterrupt):
        evaluate([subject], texts, Wish(), opener=opener)
    kept = list((tmp_path / "home" / "evaluations").iterdir())
    assert len(kept) == 1
    stages: list[str] = []
    whole = evaluate([subject], texts, Wish(), opener=opener, progress=lambda stage, *_: stages.append(stage))
    assert set(stages) == {"fake on b"}
    assert list((tmp_path / "home" / "evaluations").iterdir()) == []
    again = evaluate([subject], texts, Wish(), opener=opener)
    assert len(opened) == 3
    assert again.rows["fake"].cells["a"].bits == whole.rows["fake"].cells["a"].bits


def test_tasks_are_paired_item_by_item(tmp_path: Path) -> None:
    """The better one likes "s", so that it picks "sky", and writes the right number."""

    class Clever(ScriptedRuntime):
        def distributions(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
            logits = np.zeros((len(tokens) - 1, 257), np.float32)
            logits[:, list(b"skyA")] = 2
            yield log_softmax(logits)

    asked = [
        Question(question=f"Which is up, {n}?", choices=("sky", "ground"), answer=0, domain="law")
        for n in range(40)
    ]
    asked += [Question(question=f"Add 1 to {n}!", answer=str(n + 1), domain="law") for n in range(100, 140)]
    runtimes: dict[str, Runtime] = {
        "clever": Clever(replies={f"Add 1 to {n}!": f"It is {n + 1}" for n in range(100, 140)}),
        "fool": Biased(bits=8.0056),
    }
    subjects_ = [fake(tmp_path, "fool"), fake(tmp_path, "clever")]
    texts = {"law": ["some text here", "more text there"]}
    report = evaluate(
        subjects_, texts, Wish(parse_tasks("text,mcq,generate"), items=30), subjects_[0], asked,
        opener=lambda subject, wish: runtimes[subject.name],
    )  # fmt: skip
    cell = told(report)["slices"]["clever"]["domains"]["law"]
    assert cell["mcq"]["n"] == cell["exact_match"]["n"] == 30
    assert cell["mcq_text"]["accuracy"] == cell["exact_match"]["accuracy"] == 1
    assert cell["exact_match"]["against"]["value"] == 1
    assert cell["exact_match"]["against"]["p"] < 1e-6
    assert pair(report).compared == 1


def test_every_slice_is_held_against_the_others_on_its_domain(tmp_path: Path) -> None:
    """Each slice spares a bit on its own domain's letter; with the texts swapped, both are worst at home."""

    @dataclass
    class Expert(ScriptedRuntime):
        letter: str = "a"

        def distributions(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
            logits = np.zeros((len(tokens) - 1, 257), np.float32)
            logits[:, ord(self.letter)] = 3
            yield log_softmax(logits)

    runtimes = {"law": Expert(letter="l"), "biochem": Expert(letter="b")}
    measured = [replace(fake(pico(tmp_path / domain, domain)), name=domain) for domain in runtimes]
    for each in measured:
        (each.folder / "fake.gguf").write_text(each.name)
    texts = {domain: [f"{domain[0]}" * n + "xy" for n in range(20, 60)] for domain in runtimes}

    def found(texts: dict[str, list[str]]) -> dict[str, Any]:
        report = evaluate(measured, texts, Wish(), opener=lambda subject, wish: runtimes[subject.name])
        return {domain: own[0] for domain, own in told(report)["diagonal"].items()}

    right = found(texts)
    assert {domain: each["best"] for domain, each in right.items()} == {"law": True, "biochem": True}
    assert set(right["law"]["against"]) == {"biochem"}
    swapped = found({"law": texts["biochem"], "biochem": texts["law"]})
    assert {domain: each["best"] for domain, each in swapped.items()} == {"law": False, "biochem": False}
    assert swapped["law"]["against"]["biochem"]["value"] > 0


def test_the_control_at_equal_bytes_and_the_verdict(tmp_path: Path) -> None:
    parent, folder = write_gemma3(tmp_path / "parent", [SLIDING, FULL]), pico(tmp_path / "pico")
    quantize(folder, "Q8_0", threads=1)
    text = {"law": list(SAMPLES.values()), "other": DOCUMENTS}
    report = evaluate(subjects(folder), text, Wish(threads=1))
    found = controls(report, parent)
    assert set(found.verdicts) == {"pico", "pico-Q8_0"}
    assert found.verdicts["pico-Q8_0"].verdict in ("level", "better", "dominated")
    assert all(set(found.bits_per_byte[label]) <= {"law", "other"} for label in found.bytes)
    assert list(found.bytes.values()) == sorted(found.bytes.values())
    never = controls(report, parent, "never")
    assert {each.verdict for each in never.verdicts.values()} == {"unknown"}
    document = as_json(report, found, {}, {}, {}, "1.0")
    assert set(document["controls"]) == set(found.bytes)
    assert document["slices"]["pico"]["verdict"]["sentence"]


def test_cost_is_of_the_model_alone(tmp_path: Path) -> None:
    folder = pico(tmp_path / "pico")
    made = quantize(folder, "Q8_0", threads=1)
    for subject in subjects(folder):
        found = measure_cost(subject, "some words to begin with", 1, rounds=2)
        assert sum(found.parts.values()) <= subject.nbytes
        assert sum(found.parts.values()) > 0.7 * subject.nbytes - 50_000
        assert 0 < found.resident_bytes <= found.peak_bytes
        assert found.kv_token > found.kv_token_beyond > 0
        for speed in (found.prompt_tokens_per_second, found.written_tokens_per_second):
            assert 0 < speed.min <= speed.median <= speed.max
        assert found.bits_per_weight == pytest.approx(16 if subject.file is None else 8.5, rel=0.05)
    assert made.bytes == subjects(folder)[1].nbytes


def test_the_page_holds_all_and_fetches_nothing(tmp_path: Path) -> None:
    folder = pico(tmp_path / "pico")
    report = evaluate(
        subjects(folder), {"law": DOCUMENTS}, Wish(parse_tasks("text,probes"), items=2, lengths=(64,))
    )
    document = as_json(report, Controls({}, {}, {}), {}, {}, {}, "1.0")
    document["slices"]["<script>alert(1)</script>"] = document["slices"].pop("pico")
    html = page(document, [Figure("<svg></svg>", "a <b>figure</b>")])
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "<svg></svg>" in html
    assert "a &lt;b&gt;figure" in html
    assert "needle_64" in html
    assert "http" not in html.replace("http-equiv", "")


def test_tasks_by_name() -> None:
    assert parse_tasks("all") == set(TASKS)
    assert parse_tasks("text, mcq") == {"text", "mcq"}
    with pytest.raises(BadConfig, match="no task 'mmlu'; expected some of text, mcq"):
        parse_tasks("mmlu")
