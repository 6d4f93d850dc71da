"""`mom eval`: resolve models, text and baseline, run the evaluation, and return the report as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mom import __version__
from mom.display import console
from mom.workflows.domain_text import evaluated_rival_text
from mom.workflows.eval_text import EvalText, read_eval_text
from slices import manifest
from slices.errors import BadConfig, NotFound
from slices.measure.compare_mode import CompareMode
from slices.measure.rival import RivalText
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
from slices.report.parent_quants import ParentQuants, measure_parent_quants
from slices.report.record import record_measurements
from slices.tasks.lm_eval_harness import HarnessResult, run_harness
from slices.tasks.questions import Question, read_questions
from slices.text import domains as known_domains

NO_BASELINE = "none"


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
    made = {folder: manifest.read(folder) for folder in folders if (folder / manifest.FILE).is_file()}
    baseline = _baseline(request.baseline, list(made.values()))
    compared = [*models, *([baseline] if baseline else [])]
    questions = _questions(request)
    with console.progress_bar() as progress:
        text = read_eval_text(request.data, request.domains, list(made.values()), compared, progress)
        config, notices = fit_context(compared, text.documents, request.config)
        for notice in notices:
            console.warn(notice)
        report = evaluate(models, text.documents, config, baseline, questions, progress)
        long_context = measure_long_context(report, text.documents, progress)
        report = add_needles(report, long_context)
        quants = _parent_quants(request, report, made, text, progress)
        costs = _costs(report, progress) if EvalTask.COST in config.tasks else {}
        harness = _harness(report, request, progress) if request.harness else {}
    record_measurements(report, __version__)
    rows = compare_to_controls(report, controls)
    return as_json(report, quants, text.overlaps, costs, harness, __version__, rows, long_context)


def _parent_quants(
    request: EvalRequest,
    report: EvalReport,
    made: Mapping[Path, manifest.Manifest],
    text: EvalText,
    progress: Progress,
) -> ParentQuants:
    """The rivals of the slices, all of one parent, each on the text of its own domain."""
    if request.compare is CompareMode.NEVER or not made:
        return measure_parent_quants(report, None, {}, request.compare, progress)
    parents = _parents(list(made.values()))
    texts: dict[Path, RivalText | str] = {}
    for folder, entry in made.items():
        if entry.domain not in report.heldout:
            continue
        if len(parents) > 1:
            texts[folder] = f"the slices have {len(parents)} parents: evaluate those of one at a time"
        elif text.unchecked:
            texts[folder] = text.unchecked[0]
        else:
            verdict = report.heldout[entry.domain]
            texts[folder] = evaluated_rival_text(entry.domain, verdict, entry, request.data, progress)
    return measure_parent_quants(report, parents[0], texts, request.compare, progress)


def _parents(manifests: Sequence[manifest.Manifest]) -> list[Path]:
    return sorted({locate(made.parent.model).resolve() for made in manifests})


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


def _questions(request: EvalRequest) -> list[Question]:
    if request.config.tasks.isdisjoint(QUESTION_TASKS):
        return []
    if request.data is not None:
        return read_questions(request.data)
    if request.config.tasks & {EvalTask.MCQ, EvalTask.CODE}:
        raise NotFound("--tasks mcq and code ask questions from --data DIR")
    return []


def _baseline(reference: str | None, manifests: Sequence[manifest.Manifest]) -> EvaluatedModel | None:
    """The baseline; by default the parent of the slices.

    Raises:
        BadConfig: they have several.
    """
    if reference == NO_BASELINE or (reference is None and not manifests):
        return None
    if reference is None:
        parents = _parents(manifests)
        if len(parents) > 1:
            named = ", ".join(map(str, parents))
            raise BadConfig(f"the slices have {len(parents)} parents, {named}: give --baseline MODEL or none")
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
