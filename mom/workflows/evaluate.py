"""`mom eval`: resolve models, text and baseline, run the evaluation, and return the report as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mom import __version__
from mom.display import console
from mom.workflows.domain_text import evaluated_rival_text, own_text, used_documents
from slices import manifest
from slices.errors import NotFound
from slices.measure.compare_mode import CompareMode
from slices.measure.heldout import read_verdict
from slices.measure.overlap import without_seen
from slices.model_ref import locate
from slices.progress import Progress
from slices.report.as_json import as_json
from slices.report.config import EvalConfig
from slices.report.context_fit import fit_context
from slices.report.controls import compare_to_controls, find_controls
from slices.report.cost import InferenceCost, measure_cost
from slices.report.eval_task import QUESTION_TASKS, EvalTask
from slices.report.evaluate import EvalReport, evaluate, open_model
from slices.report.evaluated_model import EvaluatedModel, find_models
from slices.report.long_context import add_needles, measure_long_context
from slices.report.parent_quants import measure_parent_quants
from slices.report.record import record_measurements
from slices.tasks.lm_eval_harness import HarnessResult, run_harness
from slices.tasks.questions import Question, read_questions
from slices.text import domains as known_domains

GENERAL = "general"  # the domain of text that no slice is cut for: a control
ALL, NO_BASELINE = "all", "none"


@dataclass(frozen=True)
class EvalRequest:
    """The options of `mom eval`; `config` holds what does not name models or files."""

    slices: Sequence[str]
    domains: Sequence[str] = ()
    baseline: str | None = None
    data: Path | None = None
    compare: CompareMode = CompareMode.AUTO
    harness: Sequence[str] = ()
    include_path: Path | None = None
    config: EvalConfig = field(default_factory=EvalConfig)


def run_evaluation(request: EvalRequest) -> dict[str, Any]:
    """Evaluate, record the measurements in slice.json, and return the report of `mom eval --json`."""
    folders = [_locate(reference, request) for reference in request.slices]
    models = [model for folder in folders for model in find_models(folder)]
    controls = find_controls(folders)
    models = list(dict.fromkeys([*models, *(row.model for row in controls.values() if row.model)]))
    manifests = [manifest.read(folder) for folder in folders if (folder / manifest.FILE).is_file()]
    baseline = _baseline(request.baseline, manifests)
    questions = _questions(request)
    with console.progress_bar() as progress:
        documents = _documents(request, manifests, progress)
        used = _used([*models, *([baseline] if baseline else [])], progress)
        texts, overlaps = without_seen(documents, used)
        config, notices = fit_context([*models, *([baseline] if baseline else [])], texts, request.config)
        for notice in notices:
            console.warn(notice)
        report = evaluate(models, texts, config, baseline, questions, progress)
        long_context = measure_long_context(report, texts, progress)
        report = add_needles(report, long_context)
        parent = locate(manifests[0].parent.model) if manifests else None
        rivals = {
            made.domain: evaluated_rival_text(
                made.domain, report.heldout[made.domain], made, request.data, progress
            )
            for made in manifests
            if made.domain in report.heldout and request.compare is not CompareMode.NEVER
        }
        quants = measure_parent_quants(report, parent, rivals, request.compare, progress)
        costs = _costs(report, progress) if EvalTask.COST in config.tasks else {}
        harness = _harness(report, request, progress) if request.harness else {}
    record_measurements(report, __version__)
    compared = compare_to_controls(report, controls)
    return as_json(report, quants, overlaps, costs, harness, __version__, compared, long_context)


def _locate(reference: str, request: EvalRequest) -> Path:
    """The folder of a slice or checkpoint, or a GGUF file."""
    if Path(reference).is_file():
        return Path(reference)
    try:
        return manifest.find_or_checkpoint(reference)
    except NotFound as error:
        if reference not in known_domains.names():
            raise
        option = ",".join(dict.fromkeys([*request.domains, reference]))
        raise NotFound(f"{error}. {reference!r} is a domain: did you mean --domain {option}?") from None


def _used(models: Sequence[EvaluatedModel], progress: Progress) -> dict[str, list[str]]:
    """What steps of making the models' slices read, by folder; of the baseline and a lone GGUF too."""
    folders = dict.fromkeys(model.folder.resolve() for model in models)
    slices = [folder for folder in folders if (folder / manifest.FILE).is_file()]
    return {str(folder): used_documents(manifest.read(folder), progress) for folder in slices}


def _documents(
    request: EvalRequest, manifests: Sequence[manifest.Manifest], progress: Progress
) -> dict[str, list[str]]:
    """Held-out documents by domain: those of --data, else the held-out part of each domain's own text."""
    own = sorted({found.domain for found in manifests})
    selected = own if ALL in request.domains else list(request.domains or own)
    if request.data is not None:
        found = read_verdict(request.data, [] if ALL in request.domains else selected)
        if not request.domains and (request.data / "corpora" / GENERAL / "heldout.jsonl").is_file():
            found |= read_verdict(request.data, [GENERAL])
        return found
    if not selected:
        raise NotFound("which domain? None of these is a finished slice that would say: give --domain NAME")
    return {name: _own_heldout(name, manifests, progress) for name in selected}


def _own_heldout(name: str, manifests: Sequence[manifest.Manifest], progress: Progress) -> list[str]:
    made = next((found for found in manifests if found.domain == name), manifests[0] if manifests else None)
    if made is None:
        raise NotFound(f"no held-out text for {name!r}: give --data DIR")
    documents = list(own_text(name, made, progress).verdict().documents)
    if len(documents) < 2:
        raise NotFound(f"the text of {name!r} is too short to hold any of it out: give --data DIR")
    return documents


def _questions(request: EvalRequest) -> list[Question]:
    if request.config.tasks.isdisjoint(QUESTION_TASKS):
        return []
    if request.data is not None:
        return read_questions(request.data)
    if request.config.tasks & {EvalTask.MCQ, EvalTask.CODE}:
        raise NotFound("--tasks mcq and code ask questions from --data DIR")
    return []


def _baseline(reference: str | None, manifests: Sequence[manifest.Manifest]) -> EvaluatedModel | None:
    """The baseline; by default the parent of the first slice."""
    if reference == NO_BASELINE or (reference is None and not manifests):
        return None
    if reference is None:
        return EvaluatedModel(manifest.PARENT, locate(manifests[0].parent.model))
    path = Path(reference) if Path(reference).exists() else None
    model = find_models(path or _slice_or_model(reference))[0]
    return replace(model, name=f"{model.name} (baseline)")


def _slice_or_model(reference: str) -> Path:
    try:
        return manifest.find(reference)
    except NotFound:
        return locate(reference)


def _costs(report: EvalReport, progress: Progress) -> dict[str, InferenceCost]:
    """The cost of every model, one after the other, so that they do not share cores."""
    prompt = next(iter(report.heldout.values())).windows[0].text
    costs = {}
    for count, (name, result) in enumerate(report.models.items(), start=1):
        costs[name] = measure_cost(result.model, prompt, report.config.threads)
        progress("measure costs", count, len(report.models))
    return costs


def _harness(
    report: EvalReport, request: EvalRequest, progress: Progress
) -> Mapping[str, list[HarnessResult]]:
    results, config = {}, report.config
    for count, (name, result) in enumerate(report.models.items(), start=1):
        runtime = open_model(result.model, config)
        try:
            results[name] = run_harness(
                runtime,
                request.harness,
                include_path=request.include_path,
                limit=config.items,
                max_length=config.context_length,
            )
        finally:
            runtime.close()
        progress("lm-evaluation-harness", count, len(report.models))
    return results
