"""Reports: what is kept, compared, flagged and recorded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mom.display.eval_tables import show_report
from slices import manifest
from slices.errors import BadConfig, NotFound
from slices.measure.compare_mode import CompareMode
from slices.measure.heldout import cut_heldout
from slices.measure.rival import RivalText
from slices.quant.quantize import quantize
from slices.report.as_json import SCHEMA, as_json
from slices.report.baseline_comparison import compare_to_baseline
from slices.report.config import EvalConfig
from slices.report.cost import measure_cost
from slices.report.eval_task import EvalTask, parse_tasks
from slices.report.evaluate import evaluate
from slices.report.evaluated_model import EvaluatedModel, find_models
from slices.report.html_report import Plot, html_report
from slices.report.parent_quants import ParentQuants, measure_parent_quants
from slices.report.record import record_measurements
from slices.runtime import Runtime
from slices.runtimes.scripted import ScriptedRuntime
from slices.runtimes.softmax import log_softmax
from slices.tasks.questions import Question
from tests.slices.gguf_fixtures import FULL, SAMPLES, SLIDING, write_gemma3, write_manifest
from tests.slices.heal_fixtures import sentences
from tests.slices.report_fakes import DOCUMENTS, Biased, fake, report_json


def test_names_must_differ(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="share a name: a, a"):
        evaluate(
            [EvaluatedModel("a", tmp_path), EvaluatedModel("a", tmp_path / "b")],
            {"d": DOCUMENTS},
            EvalConfig(),
        )


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
    measured = [*find_models(folder), *find_models(plain)]
    assert [s.name for s in measured] == ["pico", "pico-BF16", "pico-Q2_K", "parent"]
    assert measured[0].nbytes == (folder / "model.safetensors").stat().st_size
    seen: list[tuple[str, int, int]] = []
    texts = {"demo": [*SAMPLES.values(), *DOCUMENTS], "law": DOCUMENTS}
    config = EvalConfig(threads=1)
    report = evaluate(measured, texts, config, measured[3], progress=lambda *step: seen.append(step))
    assert list(report.models) == ["parent", "pico", "pico-BF16", "pico-Q2_K"]
    assert seen[0] == ("evaluate parent on demo", 1, 10)
    found = report_json(report)
    cells = {name: row["domains"]["demo"] for name, row in found["slices"].items()}
    assert cells["pico"]["bits_per_byte"] == cells["parent"]["bits_per_byte"]  # the same random weights
    assert cells["pico"]["kl"] == dict.fromkeys(("mean", "stderr", "median", "p99", "p999", "max"), 0)
    assert (cells["pico"]["vs_baseline"]["value"], cells["pico"]["vs_baseline"]["p"]) == (0, 1)
    assert cells["pico"]["same_top1"]["value"] == cells["pico"]["perplexity_ratio"]["value"] == 1
    assert "kl" not in cells["parent"]
    assert 0 < cells["pico-BF16"]["kl"]["mean"] < 0.05 * cells["pico-Q2_K"]["kl"]["mean"]
    assert found["schema"] == SCHEMA
    assert set(found["slices"]["pico-Q2_K"]) >= {"bytes", "decode_tokens_per_second", "domains", "verdict"}
    for _ in range(2):  # the second time over the first
        record_measurements(report, "1.0")
    recorded = manifest.read(folder).measurements
    files = ("bf16", "pico-BF16.gguf", "pico-Q2_K.gguf")
    relative = "bits_per_byte_relative_to_parent"
    of_text = {"bits_per_byte", relative, "kl", "kl_first_piece", "same_top1", "lost_mass"}
    assert {(m.variant, m.domain, m.metric) for m in recorded} == {
        *((of, domain, metric) for of in files for domain in ("demo", "law") for metric in of_text),
        *((of, "", "tokens_per_second") for of in files),
        *(("parent", domain, "bits_per_byte") for domain in ("demo", "law")),
    }
    assert len(recorded) == 3 * (2 * 6 + 1) + 2
    changes = {(m.variant, m.domain): m for m in recorded if m.metric == relative}
    assert changes["bf16", "law"].value == changes["bf16", "law"].stderr == 0  # the same random weights
    bits = {(m.variant, m.domain): m.value for m in recorded if m.metric == "bits_per_byte"}
    change = bits["pico-Q2_K.gguf", "law"] / bits["parent", "law"] - 1
    assert changes["pico-Q2_K.gguf", "law"].value == pytest.approx(change)
    assert 0 < changes["pico-Q2_K.gguf", "law"].stderr < abs(change) * 10
    assert {m.code for m in recorded} == {"1.0"}
    assert {m.data for m in recorded if m.domain == "law"} == {report.heldout["law"].sha256}
    assert not (plain / manifest.FILE).exists()
    assert [s.name for s in find_models(folder / "pico-Q2_K.gguf")] == ["pico-Q2_K"]
    with pytest.raises(NotFound, match="neither weights nor a GGUF"):
        find_models(tmp_path)


def test_an_interrupted_run_goes_on_and_a_finished_one_begins_anew(tmp_path: Path) -> None:
    model, texts = fake(tmp_path), {"a": ["one two", "three"], "b": ["four", "five six"]}
    opened: list[str] = []

    class Mortal(Biased):
        def distributions(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
            if bytes(tokens[1:]).startswith(b"five") and len(opened) == 1:
                raise KeyboardInterrupt
            return super().distributions(tokens)

    def opener(model: EvaluatedModel, config: EvalConfig) -> Runtime:
        opened.append(model.name)
        return Mortal()

    with pytest.raises(KeyboardInterrupt):
        evaluate([model], texts, EvalConfig(), opener=opener)
    kept = list((tmp_path / "home" / "evaluations").iterdir())
    assert len(kept) == 1
    stages: list[str] = []
    whole = evaluate(
        [model], texts, EvalConfig(), opener=opener, progress=lambda stage, *_: stages.append(stage)
    )
    assert set(stages) == {"evaluate fake on b"}
    assert list((tmp_path / "home" / "evaluations").iterdir()) == []
    again = evaluate([model], texts, EvalConfig(), opener=opener)
    assert len(opened) == 3
    assert again.models["fake"].domains["a"].bits == whole.models["fake"].domains["a"].bits


def test_tasks_are_paired_item_by_item(tmp_path: Path) -> None:
    """The better one likes "s", so that it picks "sky", and writes the right number."""

    class Clever(ScriptedRuntime):
        def distributions(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
            logits = np.zeros((len(tokens) - 1, 257), np.float32)
            logits[:, list(b"skyA")] = 2
            yield log_softmax(logits)

    questions = [
        Question(question=f"Which is up, {n}?", choices=("sky", "ground"), answer=0, domain="law")
        for n in range(40)
    ]
    questions += [
        Question(question=f"Add 1 to {n}!", answer=str(n + 1), domain="law") for n in range(100, 140)
    ]
    runtimes: dict[str, Runtime] = {
        "clever": Clever(replies={f"Add 1 to {n}!": f"It is {n + 1}" for n in range(100, 140)}),
        "fool": Biased(bits=8.0056),
    }
    models = [fake(tmp_path, "fool"), fake(tmp_path, "clever")]
    texts = {"law": [f"some text here, {n}" for n in range(8)]}
    report = evaluate(
        models, texts, EvalConfig(parse_tasks("text,mcq,generate"), limit=30), models[0], questions,
        opener=lambda model, config: runtimes[model.name],
    )  # fmt: skip
    cell = report_json(report)["slices"]["clever"]["domains"]["law"]
    assert cell["mcq"]["n"] == cell["exact_match"]["n"] == 30
    assert cell["mcq_text"]["accuracy"] == cell["exact_match"]["accuracy"] == 1
    assert cell["exact_match"]["vs_baseline"]["value"] == 1
    assert cell["exact_match"]["vs_baseline"]["p"] < 1e-6
    assert compare_to_baseline(report).comparisons == 1


def test_every_slice_is_compared_with_the_others_on_its_own_domain(tmp_path: Path) -> None:
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
        report = evaluate(measured, texts, EvalConfig(), opener=lambda model, config: runtimes[model.name])
        return {domain: own[0] for domain, own in report_json(report)["own_domain"].items()}

    right = found(texts)
    assert {domain: each["best"] for domain, each in right.items()} == {"law": True, "biochem": True}
    assert set(right["law"]["differences"]) == {"biochem"}
    swapped = found({"law": texts["biochem"], "biochem": texts["law"]})
    assert {domain: each["best"] for domain, each in swapped.items()} == {"law": False, "biochem": False}
    assert swapped["law"]["differences"]["biochem"]["value"] > 0


def test_parent_quants_at_equal_size_and_the_verdict(tmp_path: Path) -> None:
    parent, folder = write_gemma3(tmp_path / "parent", [SLIDING, FULL]), pico(tmp_path / "pico")
    quantize(folder, "Q8_0", threads=1)
    documents = sentences(20, 20).documents
    text = {"law": [*SAMPLES.values(), *documents[:8]], "other": DOCUMENTS}
    report = evaluate(find_models(folder), text, EvalConfig(threads=1))
    rivals: dict[Path, RivalText | str] = {
        folder: RivalText((), cut_heldout(documents[8:]), report.heldout["law"])
    }
    found = measure_parent_quants(report, parent, rivals)
    assert set(found.verdicts) == {"pico", "pico-Q8_0"}
    assert found.verdicts["pico-Q8_0"].verdict in ("level", "better", "dominated")
    assert {each.rival for each in found.verdicts.values()} == set(found.bytes)
    assert all(set(found.bits_per_byte[label]) == {"law"} for label in found.bytes)
    assert list(found.bytes.values()) == sorted(found.bytes.values())
    never = measure_parent_quants(report, parent, {}, CompareMode.NEVER)
    assert {each.verdict for each in never.verdicts.values()} == {"unknown"}
    lacking = measure_parent_quants(report, parent, {folder: "no selection text"})
    assert {each.reason for each in lacking.verdicts.values()} == {"no selection text"}
    document = as_json(report, found, {}, {}, {}, "1.0")
    assert set(document["parent_quants"]) == set(found.bytes)
    assert document["slices"]["pico"]["verdict"]["sentence"]


def test_cost_is_of_the_model_alone(tmp_path: Path) -> None:
    folder = pico(tmp_path / "pico")
    made = quantize(folder, "Q8_0", threads=1)
    for model in find_models(folder):
        found = measure_cost(model, "some words to begin with", 1, rounds=2)
        assert sum(found.bytes_by_part.values()) <= model.nbytes
        assert sum(found.bytes_by_part.values()) > 0.7 * model.nbytes - 50_000
        assert 0 < found.rss_bytes <= found.peak_rss_bytes
        assert found.kv_cache_bytes_per_token > found.kv_cache_bytes_per_token_beyond_window > 0
        for speed in (found.prefill_tokens_per_second, found.decode_tokens_per_second):
            assert 0 < speed.min <= speed.median <= speed.max
        assert found.bits_per_weight == pytest.approx(16 if model.file is None else 8.5, rel=0.05)
    assert made.bytes == find_models(folder)[1].nbytes


def test_the_page_holds_all_and_fetches_nothing(tmp_path: Path) -> None:
    folder = pico(tmp_path / "pico")
    report = evaluate(
        find_models(folder),
        {"law": DOCUMENTS},
        EvalConfig(parse_tasks("text,probes"), limit=2, needle_lengths=(64,)),
    )
    document = as_json(report, ParentQuants({}, {}, {}), {}, {}, {}, "1.0")
    document["slices"]["<script>alert(1)</script>"] = document["slices"].pop("pico")
    html = html_report(document, [Plot("<svg></svg>", "a <b>figure</b>")])
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "<svg></svg>" in html
    assert "a &lt;b&gt;figure" in html
    assert "needle_64" in html
    assert "http" not in html.replace("http-equiv", "")


def test_higher_accuracy_is_green_and_more_bits_are_red(tmp_path: Path) -> None:
    models = [fake(tmp_path, name) for name in ("low", "high")]
    opener = lambda model, config: Biased(bits={"low": 2.0, "high": 3.0}[model.name])  # noqa: E731
    report = evaluate(models, {"law": DOCUMENTS}, EvalConfig(), models[0], opener=opener)
    found = report_json(report)
    difference = {"value": 0.5, "low": 0.4, "high": 0.6, "p": 0.01, "n": 9}
    high = found["slices"]["high"]["domains"]["law"]
    high |= {
        "vs_baseline": difference,
        "mcq": {"accuracy": 1, "stderr": 0, "n": 9, "vs_baseline": difference},
    }
    html = html_report(found, [])
    assert html.index('<span class="bad">+0.500') < html.index('<span class="good">+0.500')


def test_fewer_than_eight_documents_are_shown_as_not_tested(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [fake(tmp_path, name) for name in ("low", "high")]
    opener = lambda model, config: Biased(bits={"low": 2.0, "high": 3.0}[model.name])  # noqa: E731
    report = evaluate(models, {"law": ["some text"] * 7}, EvalConfig(), models[0], opener=opener)
    found = report_json(report)
    assert found["comparisons"] == 0
    assert '<span class="quiet">+1.000</span> <small>n = 7, not tested</small>' in html_report(found, [])
    show_report(found)
    assert "n = 7, not tested" in " ".join(capsys.readouterr().out.split())


def test_tasks_by_name() -> None:
    assert parse_tasks("all") == set(EvalTask)
    assert parse_tasks("text, mcq") == {"text", "mcq"}
    with pytest.raises(BadConfig, match="no task 'mmlu'; expected some of text, mcq"):
        parse_tasks("mmlu")
