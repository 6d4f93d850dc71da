"""Long text: bits by position and needles, for the slices that attend to less than their parent.

Held-out windows are shorter than most sliding windows, so that they cannot show what full attention is worth.
Measured after everything else, since only some of the models are; each of them is loaded once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

from slices import manifest
from slices.architecture.anatomy import read_anatomy
from slices.architecture.attention_change import reduces_attention
from slices.checkpoint import open_checkpoint
from slices.errors import NotFound
from slices.measure.long_text import LENGTHS, LongText, choose_long_text, score_positions
from slices.model_ref import open_model as open_parent
from slices.probes.needle_in_a_haystack import Needle, needle_prompts, score_needles
from slices.progress import Progress, no_progress
from slices.report.config import NEEDLE_MARGIN, EvalConfig
from slices.report.context_fit import fit_long_windows
from slices.report.domain_result import store_scores
from slices.report.eval_run import Opener
from slices.report.eval_task import EvalTask
from slices.report.evaluate import EvalReport, open_model
from slices.report.evaluated_model import EvaluatedModel
from slices.report.long_context_result import DomainPositions, LongContextReport, LongContextResult
from slices.report.resume_cache import EvalCache
from slices.runtime import Runtime

_TOKEN_RATIO = 1.5  # a slice's tokens of a text over its parent's, at most: what the context is opened for
_NEEDLE_TOKENS = 16_384  # read for each length: eight needles of 2,048 tokens, two of 8,192
_MAX_NEEDLES, _MIN_NEEDLES = 8, 2


@dataclass
class _Run:
    """What the models of a measurement share."""

    longest: int
    texts: Mapping[str, LongText]
    needles: Mapping[int, Sequence[Needle]]
    config: EvalConfig
    opener: Opener
    progress: Progress
    cache: EvalCache = field(default_factory=EvalCache)


def measure_long_context(
    report: EvalReport,
    texts: Mapping[str, Sequence[str]],
    progress: Progress = no_progress,
    opener: Opener = open_model,
) -> LongContextReport | None:
    """Bits by position and needles of the models of `report` that call for it, and of its baseline.

    Args:
        texts: held-out documents by domain, whole.

    Returns:
        None where no model calls for it, or `long_documents` is 0.

    Raises:
        NotFound, BadCheckpoint, MissingExtra, RunFailed: a model cannot be run.
    """
    config = report.config
    models = _models(report)
    if not models or not config.long_text_documents:
        return None
    longest, notes = fit_long_windows(models)
    reference = models[0]
    found = LongContextReport(
        reference=reference.name, longest=longest, texts={}, models={}, baseline=report.baseline, notes=notes
    )
    if not longest:
        return found
    runtime = opener(reference, _open_config(reference, longest, config))
    try:
        chosen = _choose(runtime, _own_domains(models, texts, config), longest, config, progress)
        context = _open_config(reference, longest, config).context_length
        needles = _needles(runtime, chosen, context, config)
        run = _Run(longest, chosen, needles, config, opener, progress)
        results = {reference.name: _measure(reference, run, runtime)}
    finally:
        runtime.close()
    results |= {model.name: _measure(model, run) for model in models[1:]}
    run.cache.clear()
    few = [note for domain, text in chosen.items() if (note := _few(domain, text, longest, config))]
    return replace(found, texts=chosen, models=results, notes=[*notes, *few])


def add_needles(report: EvalReport, long_context: LongContextReport | None) -> EvalReport:
    """The report with the needles among the probes of each model."""
    if long_context is None:
        return report
    models = dict(report.models)
    for name, found in long_context.models.items():
        overall = models[name].overall
        changed = {"probes": {**overall.probes, **found.needles}, "notes": [*overall.notes, *found.notes]}
        models[name] = replace(models[name], overall=overall.model_copy(update=changed))
    return replace(report, models=models)


def calls_for_long_text(model: EvaluatedModel) -> bool:
    """Whether a model is a slice that attends to less than its parent; False where either is not there."""
    if not (model.folder / manifest.FILE).is_file():
        return False
    made = manifest.read(model.folder)
    try:
        own, parent = open_checkpoint(model.folder), open_parent(made.parent.model)
    except NotFound:
        return False
    identity_layers = made.recipe.get("identity_layers", [])
    return reduces_attention(read_anatomy(own.config), read_anatomy(parent.config), identity_layers)


def _models(report: EvalReport) -> list[EvaluatedModel]:
    """The models to measure, the reference (the baseline, if any) first; empty where none calls for it."""
    models = {name: result.model for name, result in report.models.items()}
    baseline = [models.pop(report.baseline)] if report.baseline else []
    asked = EvalTask.LONG_CONTEXT in report.config.tasks
    chosen = [model for model in models.values() if asked or calls_for_long_text(model)]
    return [*baseline, *chosen] if chosen or asked else []


def _own_domains(
    models: Sequence[EvaluatedModel], texts: Mapping[str, Sequence[str]], config: EvalConfig
) -> Mapping[str, Sequence[str]]:
    """The text of the slices' own domains; of all domains where none of them is there, or on request."""
    own = {model.domain for model in models}
    found = {domain: documents for domain, documents in texts.items() if domain in own}
    return texts if EvalTask.LONG_CONTEXT in config.tasks or not found else found


def _choose(
    runtime: Runtime,
    texts: Mapping[str, Sequence[str]],
    longest: int,
    config: EvalConfig,
    progress: Progress,
) -> dict[str, LongText]:
    chosen = {}
    for number, (domain, documents) in enumerate(texts.items(), start=1):
        chosen[domain] = choose_long_text(runtime, documents, config.long_text_documents, longest)
        progress("choose long text", number, len(texts))
    return chosen


def _needles(
    runtime: Runtime, texts: Mapping[str, LongText], context: int, config: EvalConfig
) -> dict[int, list[Needle]]:
    """The same prompts for every model; none where the probes were asked for, which have their own."""
    haystack = ["".join(parts) for text in texts.values() for parts in text.parts]
    if EvalTask.PROBES in config.tasks or not haystack:
        return {}
    return {
        length: needle_prompts(runtime, haystack, length, min(config.items, needles_at(length)), config.seed)
        for length in LENGTHS
        if length + NEEDLE_MARGIN <= context
    }


def needles_at(length: int) -> int:
    """Needles at a length: as many as a fixed number of tokens allows."""
    return max(_MIN_NEEDLES, min(_MAX_NEEDLES, _NEEDLE_TOKENS // length))


def _measure(model: EvaluatedModel, run: _Run, runtime: Runtime | None = None) -> LongContextResult:
    """A model's result, from the cache or measured now; `runtime` where it is loaded already."""
    shas = [text.sha256 for text in run.texts.values()]
    key = ["long context", model.fingerprint(), shas, run.needles, run.longest]
    found = run.cache.get(LongContextResult, key)
    if found is not None:
        return found
    opened = runtime or run.opener(model, _open_config(model, run.longest, run.config))
    try:
        found = _measure_loaded(model, opened, run)
    finally:
        if runtime is None:
            opened.close()
    run.cache.put(found, key)
    return found


def _measure_loaded(model: EvaluatedModel, runtime: Runtime, run: _Run) -> LongContextResult:
    context = _open_config(model, run.longest, run.config).context_length
    domains, notes = {}, []
    for domain, text in run.texts.items():
        started = perf_counter()
        score = score_positions(f"{model.name} on {domain}", runtime, text, context, run.progress)
        domains[domain] = DomainPositions(
            bits=score.bits, tokens=score.tokens, seconds=perf_counter() - started
        )
        if score.truncated:
            notes.append(
                f"{score.truncated} long documents of {domain} have more of its tokens than its context of "
                f"{context:,}: their ends were not read"
            )
    needles = {}
    for length, prompts in run.needles.items():
        if max(len(runtime.encode(each.prompt)) for each in prompts) + NEEDLE_MARGIN > context:
            notes.append(
                f"no needle of {length:,} tokens, more of which it takes than its context of {context:,}"
            )
        else:
            scores = score_needles(runtime, prompts, length, run.progress)
            needles[scores.task] = store_scores(scores)
    return LongContextResult(domains=domains, needles=needles, notes=notes)


def _open_config(model: EvaluatedModel, longest: int, config: EvalConfig) -> EvalConfig:
    """The configuration whose context holds the longest window in the tokens of any slice."""
    wanted = int(_TOKEN_RATIO * longest)
    return replace(config, tasks=frozenset(), min_context=wanted, max_context=model.context_length())


def _few(domain: str, text: LongText, longest: int, config: EvalConfig) -> str | None:
    """A note where a domain has fewer long documents than were asked for."""
    count, wanted = len(text.parts), config.long_text_documents
    if count >= wanted:
        return None
    found = "no document" if not count else f"{count} of the {wanted} documents wanted"
    return f"{domain}: {found} of {LENGTHS[0]:,} tokens or more"
