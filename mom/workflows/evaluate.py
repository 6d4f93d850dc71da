"""`mom eval`: which models, on which text, against what; and everything that comes of it as one object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mom import __version__
from mom.display import console
from mom.workflows.domain_text import own_text
from slices import manifest
from slices.errors import NotFound
from slices.measure.compare_mode import CompareMode
from slices.measure.heldout import read_heldout
from slices.measure.overlap import without_seen
from slices.model_ref import locate
from slices.progress import Progress
from slices.report.as_json import as_json
from slices.report.controls import controls
from slices.report.cost import Cost, measure_cost
from slices.report.record import record
from slices.report.run import Report, evaluate
from slices.report.settings import Wish
from slices.report.subject import Subject, subjects
from slices.tasks.lm_eval_harness import HarnessResult, run_harness
from slices.tasks.questions import Question, read_questions

CONTROL = "general"  # the domain of text that no expert is for
ALL = "all"
ASKING = ("mcq", "generate", "code")  # tasks that ask questions of the data


@dataclass(frozen=True)
class Asked:
    """What the command line asks for, beside the settings that `Wish` holds."""

    slices: Sequence[str]
    domains: Sequence[str] = ()
    against: str | None = None
    data: Path | None = None
    compare: CompareMode = CompareMode.AUTO
    harness: Sequence[str] = ()
    include: Path | None = None
    wish: Wish = field(default_factory=Wish)


def measure(asked: Asked) -> dict[str, Any]:
    """Measure, record in slice.json, and report as `mom eval --json` writes it."""
    folders = [
        Path(each) if Path(each).is_file() else manifest.find_or_checkpoint(each) for each in asked.slices
    ]
    measured = [subject for folder in folders for subject in subjects(folder)]
    recipes = [manifest.read(folder) for folder in folders if (folder / manifest.FILE).is_file()]
    reference = _reference(asked.against, recipes)
    questions = _questions(asked)
    with console.progress_bar() as report:
        texts, overlaps = without_seen(_texts(asked, recipes, report), _seen(recipes, report))
        found = evaluate(measured, texts, asked.wish, reference, questions, report)
        parent = locate(recipes[0].parent.model) if recipes else None
        rivals = controls(found, parent, asked.compare, report)
        costs = _costs(found, report) if "cost" in asked.wish.tasks else {}
        published = _published(found, asked, report) if asked.harness else {}
    record(found, __version__)
    return as_json(found, rivals, overlaps, costs, published, __version__)


def _texts(asked: Asked, recipes: Sequence[manifest.Manifest], report: Progress) -> dict[str, list[str]]:
    """Held-out documents by domain: of the data, else what each domain's own text holds out."""
    own = sorted({found.domain for found in recipes})
    if asked.data is not None:
        wanted = [] if ALL in asked.domains else list(asked.domains or own)
        known = read_heldout(asked.data, wanted)
        if not asked.domains and (asked.data / "corpora" / CONTROL / "heldout.jsonl").is_file():
            known |= read_heldout(asked.data, [CONTROL])
        return known
    wanted = own if ALL in asked.domains else list(asked.domains or own)
    if not wanted:
        raise NotFound("which domain? None of these is a finished slice that would say: give --domain NAME")
    return {name: _own_heldout(name, recipes, report) for name in wanted}


def _own_heldout(name: str, recipes: Sequence[manifest.Manifest], report: Progress) -> list[str]:
    made = next((found for found in recipes if found.domain == name), recipes[0] if recipes else None)
    if made is None:
        raise NotFound(f"no held-out text for {name!r}: give --data DIR")
    found = list(own_text(name, made, report).heldout().documents)
    if len(found) < 2:
        raise NotFound(f"the text of {name!r} is too short to hold any of it out: give --data DIR")
    return found


def _seen(recipes: Sequence[manifest.Manifest], report: Progress) -> dict[str, tuple[str, ...]]:
    """Calibration text by slice, of those that were made by text."""
    used = [made for made in recipes if made.calibration.source != "none" or made.healing]
    return {made.name: own_text(made.domain, made, report).calibration().documents for made in used}


def _questions(asked: Asked) -> list[Question]:
    if asked.wish.tasks.isdisjoint(ASKING):
        return []
    if asked.data is None:
        if asked.wish.tasks & {"mcq", "code"}:
            raise NotFound("--tasks mcq and code ask questions from --data DIR")
        return []
    return read_questions(asked.data)


def _reference(against: str | None, recipes: Sequence[manifest.Manifest]) -> Subject | None:
    """The reference row; without a wish, the parent of the first slice."""
    if against == "none" or (against is None and not recipes):
        return None
    if against is None:
        return Subject(manifest.PARENT, locate(recipes[0].parent.model))
    path = Path(against) if Path(against).exists() else None
    first = subjects(path or _slice_or_model(against))[0]
    return replace(first, name=f"{first.name} (reference)")


def _slice_or_model(reference: str) -> Path:
    try:
        return manifest.find(reference)
    except NotFound:
        return locate(reference)


def _costs(found: Report, report: Progress) -> dict[str, Cost]:
    """Of every row, one after the other, so that they do not disturb each other."""
    prompt = next(iter(found.texts.values())).windows[0].text
    costs = {}
    for number, (name, row) in enumerate(found.rows.items(), start=1):
        costs[name] = measure_cost(row.subject, prompt, found.wish.threads)
        report("measure costs", number, len(found.rows))
    return costs


def _published(found: Report, asked: Asked, report: Progress) -> Mapping[str, list[HarnessResult]]:
    figures = {}
    for number, (name, row) in enumerate(found.rows.items(), start=1):
        runtime = row.subject.open(asked.wish.threads, asked.wish.context)
        try:
            figures[name] = run_harness(
                runtime, asked.harness, asked.include, asked.wish.items, asked.wish.context
            )
        finally:
            runtime.close()
        report("published tasks", number, len(found.rows))
    return figures
