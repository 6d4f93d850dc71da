"""The comparison of a slice with the parent's plain quants of equal size, run and shown."""

from pathlib import Path
from typing import Any

from mom.display import console
from mom.workflows.domain_text import has_text, rival_text, unseen_documents
from slices import manifest
from slices.errors import SliceError
from slices.manifest import Verdict
from slices.measure.compare_mode import NOT_MEASURED, CompareMode
from slices.measure.dominated import unknown_verdict, verdict_sentence
from slices.measure.heldout import SAMPLE_BYTES, cut_heldout
from slices.measure.judge import judge, measure_file, record_verdict
from slices.progress import Progress

_NO_TEXT = (
    "there is no text of the domain; bring some with --corpus, or --compare always has the parent write it"
)


def judge_file(
    folder: Path, variant: str, when: CompareMode, threads: int | None, report: Progress
) -> Verdict:
    """Measure a file of a slice on its own domain's text; without text at hand, only if `always`."""
    made = manifest.read(folder)
    if when is CompareMode.NEVER:
        return record_verdict(folder, unknown_verdict(variant, made.domain, NOT_MEASURED))
    if when is CompareMode.AUTO and not has_text(made):
        return record_verdict(folder, unknown_verdict(variant, made.domain, _NO_TEXT))
    try:
        text = rival_text(made, report)
    except SliceError as error:
        return record_verdict(folder, unknown_verdict(variant, made.domain, str(error)))
    return judge(folder, variant, text, when, threads, report)


def measure_bits(folder: Path, variant: str, reason: str, report: Progress) -> Verdict:
    """Measure a file's bits per byte on its own domain's verdict text, if there is any at hand.

    `reason` is recorded as why it was not compared.
    """
    made = manifest.read(folder)
    if not has_text(made):
        return record_verdict(folder, unknown_verdict(variant, made.domain, _NO_TEXT))
    try:
        documents = unseen_documents(made.domain, made, report)
        measure_file(folder, variant, cut_heldout(documents, SAMPLE_BYTES), progress=report)
    except SliceError as error:
        reason = str(error)
    return record_verdict(folder, unknown_verdict(variant, made.domain, reason))


def judge_made(
    folder: Path, file: Path, when: CompareMode, threads: int | None, report: Progress
) -> dict[str, Any] | None:
    """The same for a GGUF that was just made, as JSON; None where it is no file of a slice's own."""
    if not (folder / manifest.FILE).is_file() or file.parent.resolve() != folder.resolve():
        return None
    return verdict_json(judge_file(folder, file.name, when, threads, report))


def verdict_json(found: Verdict) -> dict[str, Any]:
    """A verdict as JSON, with its sentence."""
    return {**found.model_dump(mode="json"), "sentence": verdict_sentence(found)}


def show_verdict(figures: dict[str, Any]) -> None:
    """The sentence; a warning where the slice is dominated, level, or nothing is known."""
    if figures["verdict"] in ("better", "alone"):
        console.out.print(figures["sentence"], soft_wrap=True, markup=False)
    else:
        console.warn(figures["sentence"])


def dominated_by(verdict: Verdict | None) -> str:
    """What dominates a file of a slice, in few words."""
    if verdict is None or verdict.verdict == "unknown":
        return "not measured"
    if verdict.verdict == "alone":
        return "no rival as small"
    if verdict.verdict == "better":
        return "nothing"
    rival = f"{verdict.rival}, {console.size(verdict.rival_bytes)}"
    return rival if verdict.verdict == "dominated" else f"level with {rival}"
