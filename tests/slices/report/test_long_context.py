"""Long text in a report: who is measured, what differs where, what is said of what is missing."""

import json
from pathlib import Path
from typing import Any

import pytest

from slices import manifest
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.pictures.bits_by_position import plot_bits_by_position
from slices.report.as_json import as_json
from slices.report.config import NEEDLE_MARGIN, EvalConfig
from slices.report.eval_task import EvalTask
from slices.report.evaluate import EvalReport, evaluate
from slices.report.evaluated_model import EvaluatedModel, find_models
from slices.report.html_report import html_report
from slices.report.long_context import (
    add_needles,
    calls_for_long_text,
    measure_long_context,
    needles_at,
)
from slices.report.long_context_result import LongContextReport
from slices.report.parent_quants import ParentQuants
from slices.runtime import Runtime
from tests.slices.gguf_fixtures import FULL, SLIDING, write_gemma3
from tests.slices.measure.test_long_text import ByByte, document
from tests.slices.report_fakes import fake

ALL = frozenset({EvalTask.TEXT, EvalTask.LONG_CONTEXT})


class Endless(EvaluatedModel):
    """A model whose files do not say what its context is."""

    def context_length(self) -> int | None:
        return None


def slice_of(parent: Path, folder: Path, layers: str) -> EvaluatedModel:
    cut(SliceRequest(domain="law", layers=layers, model=str(parent), output=folder))
    return find_models(folder)[0]


def measured(
    models: dict[str, ByByte], folder: Path, texts: dict[str, list[str]], config: EvalConfig
) -> tuple[EvalReport, LongContextReport | None]:
    """A report of fakes, the first of them the baseline."""

    def opener(model: EvaluatedModel, config: EvalConfig) -> Runtime:
        return models[model.name]

    files = [Endless(**vars(fake(folder, name))) for name in models]
    report = evaluate(files, texts, config, files[0], opener=opener)
    return report, measure_long_context(report, texts, opener=opener)


def as_document(report: EvalReport, found: LongContextReport | None) -> dict[str, Any]:
    document = as_json(
        add_needles(report, found), ParentQuants({}, {}, {}), {}, {}, {}, "1.0", long_context=found
    )
    parsed: dict[str, Any] = json.loads(json.dumps(document, allow_nan=False))
    return parsed


def test_a_model_that_loses_the_far_past_is_worse_there_only(tmp_path: Path) -> None:
    texts = {"law": [document(n, 2100 + 40 * n) for n in range(9)]}
    models = {"parent": ByByte(), "swa": ByByte(far=0.5)}
    report, found = measured(models, tmp_path, texts, EvalConfig(ALL, long_documents=9, limit=9))
    page = as_document(report, found)
    shared = page["long_context"]
    assert (shared["reference"], shared["longest"], shared["notes"]) == ("parent", 8192, [])
    assert [(each["start"], each["end"]) for each in shared["domains"]["law"]["bins"]] == [
        (0, 512), (512, 1024), (1024, 2048),
    ]  # fmt: skip
    assert shared["comparisons"] == 3
    near, *far = page["slices"]["swa"]["long_context"]["law"]
    assert abs(near["vs_baseline"]["value"]) < 1e-9
    assert near["documents"] == 9
    for each in far:
        assert each["vs_baseline"]["value"] == pytest.approx(0.5, abs=0.02)
        assert each["vs_baseline"]["p"] < 0.05
    base = page["slices"]["parent"]["long_context"]["law"]
    assert all(each["vs_baseline"] is None for each in base)
    assert [each["bits_per_byte"]["value"] for each in base] == pytest.approx([2, 2, 2])
    html = html_report(page, [])
    assert "Long text" in html
    assert "1,024-2,048" in html
    svg = plot_bits_by_position(page, "law")
    assert "swa" in svg
    assert "position in the document, tokens of parent" in svg


def test_with_fewer_than_eight_documents_nothing_is_tested_and_that_is_said(tmp_path: Path) -> None:
    texts = {"law": [document(n, 1100) for n in range(3)], "other": ["short", "texts"]}
    models = {"parent": ByByte(), "swa": ByByte(far=0.5)}
    report, found = measured(models, tmp_path, texts, EvalConfig(ALL))
    page = as_document(report, found)
    assert page["long_context"]["notes"] == [
        "law: 3 of the 12 documents wanted of 1,024 tokens or more",
        "other: no document of 1,024 tokens or more",
    ]
    assert page["slices"]["swa"]["long_context"]["law"][1]["vs_baseline"]["p"] is None
    assert page["slices"]["swa"]["long_context"]["other"] == []
    assert page["long_context"]["domains"]["other"]["bins"] == []
    assert "not tested" in html_report(page, [])


def test_needles_join_the_probes_and_are_the_same_for_all_models(tmp_path: Path) -> None:
    texts = {"law": [document(n, 2100) for n in range(2)]}
    models = {"parent": ByByte(), "swa": ByByte(pieces=2)}
    report, found = measured(models, tmp_path, texts, EvalConfig(ALL))
    page = as_document(report, found)
    probes = page["slices"]["swa"]["probes"]
    assert {name: each["n"] for name, each in probes.items()} == {
        "needle_1024": 8, "needle_2048": 8, "needle_4096": 4,
    }  # fmt: skip
    assert "needle_8192" in page["slices"]["parent"]["probes"]
    note = "no needle of 8,192 tokens, more of which it takes than its context of 12,288"
    assert note in page["slices"]["swa"]["notes"]
    assert probes["needle_1024"]["vs_baseline"]["value"] == 0  # the same prompts, though not the same tokens
    assert needles_at(512) == 8


def test_it_can_be_left_out_and_is_not_measured_without_a_reason(tmp_path: Path) -> None:
    texts = {"law": [document(n, 1100) for n in range(3)]}
    models = {"parent": ByByte(), "swa": ByByte()}
    assert measured(models, tmp_path, texts, EvalConfig(ALL, long_documents=0))[1] is None
    report, found = measured(models, tmp_path, texts, EvalConfig())
    assert found is None
    assert as_document(report, found)["long_context"] is None


def test_slices_with_less_attention_call_for_it(tmp_path: Path) -> None:
    parent = write_gemma3(tmp_path / "parent", [SLIDING, FULL, SLIDING, FULL])
    assert not calls_for_long_text(slice_of(parent, tmp_path / "whole", "all"))
    assert not calls_for_long_text(slice_of(parent, tmp_path / "shallow", "0,1,3"))
    swa = slice_of(parent, tmp_path / "swa", "swa")
    assert calls_for_long_text(swa)
    assert not calls_for_long_text(EvaluatedModel("parent", parent))
    made = manifest.read(swa.folder)
    gone = made.model_copy(update={"parent": made.parent.model_copy(update={"model": "gone/away/x"})})
    manifest.write(swa.folder, gone)
    assert not calls_for_long_text(swa)


@pytest.mark.parametrize(("context", "longest", "bins"), [(1024, 1024, 2), (2500, 2048, 3), (512, 0, 0)])
def test_a_real_slice_is_measured_within_the_smallest_context(
    context: int, longest: int, bins: int, tmp_path: Path
) -> None:
    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "head_dim": 8}
    parent = write_gemma3(tmp_path / "parent", [SLIDING, FULL], 3, max_position_embeddings=context, **shape)
    swa = slice_of(parent, tmp_path / "swa", "swa")
    texts = {"law": [document(n, 9000) for n in range(2)]}
    config = EvalConfig(threads=1, limit=2, max_bytes=2000)
    report = evaluate([swa], texts, config, EvaluatedModel("parent", parent))
    found = measure_long_context(report, texts)
    assert found is not None
    assert found.longest == longest
    assert f"parent has a context of {context:,} tokens: long text " in found.notes[0]
    page = as_document(report, found)
    for name in ("parent", "swa"):
        long_text = page["slices"][name]["long_context"]
        assert len(long_text["law"] if long_text else []) == bins
    assert set(page["slices"]["swa"]["probes"]) == {
        f"needle_{length}" for length in (1024, 2048) if length + NEEDLE_MARGIN <= context
    }
