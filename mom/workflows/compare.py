"""Is a slice worth its bytes? The verdict against the parent's plain quants, asked for and shown."""

from pathlib import Path
from typing import Any

from mom.display import console
from mom.workflows.domain_text import own_text
from slices import manifest
from slices.errors import SliceError
from slices.manifest import BF16, Manifest, Verdict
from slices.measure.dominated import sentence, unknown
from slices.measure.judge import judge, record_verdict
from slices.text import domains

_NO_TEXT = (
    "there is no text of the domain; bring some with --corpus, or --compare always has the parent write it"
)


def judge_file(folder: Path, of: str, when: str, threads: int | None, report: console.Report) -> Verdict:
    """Measure a file of a slice on its own domain's held-out text; without text at hand, only if `always`."""
    made = manifest.read(folder)
    if when == "auto" and not _has_text(made):
        return record_verdict(folder, unknown(of, made.domain, _NO_TEXT))
    documents: list[str] = []
    try:
        if when != "never":
            documents = list(own_text(made.domain, made, report).heldout().documents)
    except SliceError as error:
        return record_verdict(folder, unknown(of, made.domain, str(error)))
    return judge(folder, of, documents, when, threads, report)


def judge_made(
    folder: Path, file: Path, when: str, threads: int | None, report: console.Report
) -> dict[str, Any] | None:
    """The same for a GGUF that was just made, as JSON; None where it is no file of a slice's own."""
    if not (folder / manifest.FILE).is_file() or file.parent.resolve() != folder.resolve():
        return None
    return told(judge_file(folder, file.name, when, threads, report))


def told(found: Verdict) -> dict[str, Any]:
    """A verdict as JSON, with its sentence."""
    return {**found.model_dump(mode="json"), "sentence": sentence(found)}


def show_verdict(figures: dict[str, Any]) -> None:
    """The sentence; a warning where the slice is dominated."""
    if figures["verdict"] == "better":
        console.out.print(figures["sentence"], soft_wrap=True, markup=False)
    else:
        console.warn(figures["sentence"])


def headline(made: Manifest) -> str:
    """What dominates a slice, in few words: of its smallest file that was judged, else of bf16."""
    files = {each.file: each.bytes for each in made.quantized} | {BF16: made.bytes}
    known = [each for each in made.verdicts if each.of in files and each.verdict != "unknown"]
    if not known:
        return "not known"
    found = min(known, key=lambda each: files[each.of])
    if found.verdict == "better":
        return "nothing"
    rival = f"{found.by}, {console.size(found.by_bytes)}"
    return rival if found.verdict == "dominated" else f"level with {rival}"


def _has_text(made: Manifest) -> bool:
    """Whether held-out text is at hand without a run of the parent."""
    written = made.calibration.source == "parent"
    return bool(made.recipe.get("corpus")) or written or bool(domains.load(made.domain).corpus)
