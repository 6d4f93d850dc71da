"""The text that steps of making a slice read: recorded, disjoint, and never what a verdict is measured on."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mom.workflows.domain_text import unseen_documents, used_text
from mom.workflows.evaluate import EvalRequest, run_evaluation
from mom.workflows.quantize import QuantizeOptions
from mom.workflows.quantize_auto import climb_ladder
from slices import manifest
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.errors import BadConfig
from slices.heal.heal import heal
from slices.heal.request import HealRequest
from slices.heal.settings import HealConfig
from slices.measure.compare_mode import CompareMode
from slices.measure.heldout import cut_heldout, read_selection, read_verdict
from slices.progress import no_progress
from slices.report.config import EvalConfig
from slices.text.corpus import Part, part_of, read_corpus
from slices.text.use import record_text_use, text_use
from tests.slices.heal_fixtures import parent_gemma3, sentences, write_data

QUICK = HealConfig(steps=12, batch=2, eval_every=6, lr=1e-2, precision="float32", warmup_steps=2)


def write(path: Path, documents: Sequence[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    return path


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parent_gemma3(tmp_path_factory.mktemp("parts") / "parent")


def slice_of(parent: Path, target: Path, corpus: Path) -> Path:
    cut(
        SliceRequest(
            domain="law", layers="drop:1", vocab="500", model=str(parent), corpus=(corpus,), output=target
        )
    )
    return target


def healed(slice_: Path, target: Path, corpus: Path) -> Path:
    few = replace(QUICK, hard_label_weight=0.5)
    heal(HealRequest(slice=slice_, target=target, text=read_corpus([corpus]), config=few, threads=1))
    return target


def test_every_step_records_its_part(parent: Path, tmp_path: Path) -> None:
    own, other = (
        write(tmp_path / f"{name}.jsonl", sentences(80, seed=seed).documents)
        for name, seed in (("own", 1), ("other", 2))
    )
    made = manifest.read(healed(slice_of(parent, tmp_path / "law", own), tmp_path / "healed", other))
    uses = {use.step: use for use in made.texts}
    assert {step: (use.part, use.files) for step, use in uses.items()} == {
        "cut": ("calibration", [str(own)]),
        "heal": ("calibration", [str(other)]),
        "checkpoint": ("selection", [str(other)]),
    }
    assert uses["checkpoint"].sha256 == read_corpus([other]).selection().sha256
    used = set(used_text(made, no_progress).documents)
    assert used == {
        *read_corpus([own]).calibration().documents,
        *read_corpus([other]).calibration().documents,
        *read_corpus([other]).selection().documents,
    }
    assert made.healing is not None
    verdict = cut_heldout(read_corpus([other]).verdict().documents, 16_000)
    selection = cut_heldout(read_corpus([other]).selection().documents, 16_000)
    assert made.healing["heldout"]["sha256"] == verdict.sha256 != selection.sha256
    assert made.healing["before"] != made.healing["selection"]["before"]


def test_text_that_is_gone_or_changed_is_named_and_gives_no_verdict(
    parent: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, other = (
        write(tmp_path / f"{name}.jsonl", sentences(80, seed=seed).documents)
        for name, seed in (("own", 1), ("other", 2))
    )
    folder = healed(slice_of(parent, tmp_path / "law", own), tmp_path / "healed", other)
    made = manifest.read(folder)
    assert used_text(made, no_progress).unchecked == ()
    write(other, sentences(80, seed=5).documents)
    found = used_text(made, no_progress)
    assert set(read_corpus([other]).calibration().documents) <= set(found.documents)
    assert found.unchecked == tuple(
        f"healed: {other} has changed since its step {step!r} read it" for step in ("heal", "checkpoint")
    )
    other.unlink()
    lost = used_text(made, no_progress).unchecked
    assert [reason.split(" read cannot be checked")[0] for reason in lost] == [
        "healed: what its step 'heal'",
        "healed: what its step 'checkpoint'",
    ]
    assert "what its step 'heal' read cannot be checked" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(BadConfig, match="what its step 'heal' read cannot be checked"):
        unseen_documents("law", made, no_progress)
    report = run_evaluation(
        EvalRequest(
            slices=[str(folder)],
            baseline="none",
            compare=CompareMode.ALWAYS,
            config=EvalConfig(max_bytes=2000, threads=1),
        )
    )
    assert report["domains"]["law"]["overlap"]["unchecked"] == lost
    found_verdict = report["slices"]["healed"]["verdict"]
    assert (found_verdict["verdict"], found_verdict["reason"]) == ("unknown", lost[0])


def test_a_choice_on_data_is_checked_where_its_heldout_file_holds_a_copy(
    parent: Path, tmp_path: Path
) -> None:
    data = write_data(tmp_path / "data", ["law"])
    law = data / "corpora" / "law"
    read = read_selection(data, "law")
    write(law / "heldout.jsonl", [*read_verdict(data)["law"], read.documents[0]])
    folder = slice_of(parent, tmp_path / "law", law / "calibration.jsonl")
    record_text_use(folder, text_use("quantization type", read_selection(data, "law"), Part.SELECTION))
    found = used_text(manifest.read(folder), no_progress)
    assert found.unchecked == () and set(read.documents) <= set(found.documents)


def test_a_slice_healed_on_the_heldout_file_is_refused(parent: Path, tmp_path: Path) -> None:
    """By its path in the record, although the slice's own corpus is another."""
    data = write_data(tmp_path / "data", ["law"])
    heldout = data / "corpora" / "law" / "heldout.jsonl"
    slice_ = slice_of(parent, tmp_path / "law", data / "corpora" / "law" / "calibration.jsonl")
    cheat = healed(slice_, tmp_path / "cheat", heldout)
    few = EvalConfig(max_bytes=2000, threads=1)
    request = EvalRequest(
        slices=[str(slice_)],
        baseline="none",
        data=data,
        domains=["law"],
        compare=CompareMode.NEVER,
        config=few,
    )
    report = run_evaluation(request)
    assert report["domains"]["law"]["overlap"]["seen"] == 0
    seen = sum(part_of(text) != Part.VERDICT for text in read_verdict(data)["law"])
    with pytest.raises(BadConfig, match=rf"'law' is not held out: {seen} of its 60 documents share"):
        run_evaluation(replace(request, slices=[str(cheat)]))


def test_the_ladder_chooses_on_other_text_than_it_reports(parent: Path, tmp_path: Path) -> None:
    corpus = write(tmp_path / "text.jsonl", sentences(80).documents)
    folder = slice_of(parent, tmp_path / "law", corpus)
    options = QuantizeOptions(
        slice=str(folder), type="Q8_0", max_kl=9.0, threads=1, compare=CompareMode.NEVER
    )
    figures = climb_ladder(options)
    text = read_corpus([corpus])
    assert figures["text"]["sha256"] == cut_heldout(text.selection().documents, 24_000).sha256
    assert figures["kept"]["data"] == cut_heldout(text.verdict().documents, 24_000).sha256
    made = manifest.read(folder)
    assert {m.data for m in made.measurements} == {figures["kept"]["data"]}
    assert [(use.step, use.part) for use in made.texts] == [
        ("cut", "calibration"),
        ("quantization type", "selection"),
    ]
    assert set(unseen_documents("law", made, no_progress)) == set(text.verdict().documents)


def test_data_is_split_between_choice_and_report(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", ["law"])
    selection, verdict = read_selection(data, "law"), read_verdict(data)["law"]
    assert selection.documents and not set(selection.documents) & set(verdict)
    assert all(part_of(text) == Part.SELECTION for text in selection.documents)
    copied = [*verdict, selection.documents[0]]
    write(data / "corpora" / "law" / "heldout.jsonl", copied)
    assert read_selection(data, "law").documents == selection.documents[1:]
