"""Evaluation, step by step: every model on every domain, against a baseline that is run once.

All formats go through `Runtime`, torch and llama.cpp alike, on the same windows. A model is loaded once for
all domains; finished parts are cached, so that an interrupted evaluation resumes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

from pydantic import BaseModel

from slices.errors import BadCheckpoint, BadConfig, NotFound
from slices.measure.heldout import Heldout, cut_all
from slices.measure.token_map import TokenMap
from slices.measure.tokenized import tokenize_windows
from slices.probes.run import run_probes
from slices.progress import Progress, no_progress
from slices.report.config import EvalConfig
from slices.report.domain_result import DomainResult, StoredScores, measure_domain, store_scores
from slices.report.eval_run import EvalRun, Opener, map_vocabulary
from slices.report.eval_task import EvalTask
from slices.report.evaluated_model import EvaluatedModel
from slices.runtime import Runtime, Sampling
from slices.tasks.questions import Question

_SPEED_TOKENS = 32


class OverallResult(BaseModel):
    """What does not depend on the domain. `notes` say what could not be measured, and why."""

    decode_tokens_per_second: float
    probes: dict[str, StoredScores] = {}
    notes: list[str] = []


@dataclass(frozen=True)
class ModelResult:
    """The results of one model, `domains` by name."""

    model: EvaluatedModel
    bytes: int
    overall: OverallResult
    domains: dict[str, DomainResult]


@dataclass(frozen=True)
class EvalReport:
    """The results of one evaluation: models by name, held-out text by domain, the baseline's name."""

    models: dict[str, ModelResult]
    heldout: dict[str, Heldout]
    config: EvalConfig
    baseline: str | None


def evaluate(
    models: Sequence[EvaluatedModel],
    texts: Mapping[str, Sequence[str]],
    config: EvalConfig,
    baseline: EvaluatedModel | None = None,
    questions: Sequence[Question] = (),
    progress: Progress = no_progress,
    opener: Opener | None = None,
) -> EvalReport:
    """Measure every model on every domain.

    Args:
        texts: held-out documents by domain.
        baseline: the model that the others are compared to; it is measured first.
        questions: of all domains; a sample of them is asked.
        opener: loads a model, for tests.

    Raises:
        BadConfig: two models share a name, or a domain has fewer than two documents.
        NotFound, BadCheckpoint, MissingExtra, RunFailed: a model cannot be run.
    """
    ordered = [*([baseline] if baseline else []), *(each for each in models if each != baseline)]
    names = [model.name for model in ordered]
    if len(set(names)) < len(names):
        raise BadConfig(f"two of the slices to measure share a name: {', '.join(sorted(names))}")
    heldout = heldout_windows(texts, config)
    run = EvalRun(
        heldout=heldout,
        questions=questions,
        config=config,
        baseline=baseline,
        opener=opener or open_model,
        progress=progress,
    )
    results = {model.name: _measure_model(model, run) for model in ordered}
    run.cache.clear()
    return EvalReport(
        models=results, heldout=heldout, config=config, baseline=baseline.name if baseline else None
    )


def heldout_windows(texts: Mapping[str, Sequence[str]], config: EvalConfig) -> dict[str, Heldout]:
    """The windows of each domain's first `limit` documents with text, or a sample of `max_bytes` of them."""
    documents = {domain: [text for text in found if text][: config.limit] for domain, found in texts.items()}
    return cut_all(documents, config.max_bytes, config.window_bytes, config.stride_bytes)


def open_model(model: EvaluatedModel, config: EvalConfig) -> Runtime:
    """Load a model with the context that the evaluation needs."""
    return model.open(config.threads, config.context_length)


def _measure_model(model: EvaluatedModel, run: EvalRun) -> ModelResult:
    """A model's results, from the cache and from what is measured now."""
    keys = {domain: run.cache_key(model, domain) for domain in run.heldout}
    overall_key = [*next(iter(keys.values())), "overall"]
    cached = {domain: run.cache.get(DomainResult, key) for domain, key in keys.items()}
    results = {domain: result for domain, result in cached.items() if result}
    overall = run.cache.get(OverallResult, overall_key)
    if overall is None or len(results) < len(keys):
        runtime = run.opener(model, run.config)
        try:
            vocabulary, notes = _map_baseline(model, runtime, run)
            for domain in (each for each in keys if each not in results):
                results[domain] = _measure_domain(model, runtime, domain, vocabulary, not notes, run)
                run.cache.put(results[domain], keys[domain])
            if overall is None:
                overall = _measure_overall(runtime, notes, run)
                run.cache.put(overall, overall_key)
        finally:
            runtime.close()
            run.close_baseline()
    return ModelResult(
        model=model, bytes=model.nbytes, overall=overall, domains={domain: results[domain] for domain in keys}
    )


def _map_baseline(model: EvaluatedModel, runtime: Runtime, run: EvalRun) -> tuple[TokenMap | None, list[str]]:
    """A model's tokens by the baseline's, or a note on why the two cannot be compared token by token."""
    if run.baseline is None or run.baseline == model:
        return None, []
    try:
        return map_vocabulary(model, runtime, run.baseline), []
    except (BadCheckpoint, NotFound) as error:
        return None, [f"no KL to {run.baseline.name}, whose vocabulary differs: {error}"]


def _measure_domain(
    model: EvaluatedModel,
    runtime: Runtime,
    domain: str,
    vocabulary: TokenMap | None,
    comparable: bool,
    run: EvalRun,
) -> DomainResult:
    text = run.heldout[domain]
    windows = tokenize_windows(f"{model.name} on {domain}", runtime, text)
    compared = comparable and model != run.baseline
    return measure_domain(
        name=model.name,
        runtime=runtime,
        domain=domain,
        text=text,
        windows=windows,
        reference=run.baseline_distributions(domain, windows, vocabulary) if compared else None,
        questions=run.questions,
        config=run.config,
        progress=run.progress,
    )


def _measure_overall(runtime: Runtime, notes: list[str], run: EvalRun) -> OverallResult:
    texts, config = [window.text for text in run.heldout.values() for window in text.windows], run.config
    probes: dict[str, StoredScores] = {}
    if EvalTask.PROBES in config.tasks:
        scores = run_probes(runtime, texts, config.items, config.needle_lengths, config.seed, run.progress)
        probes = {name: store_scores(each) for name, each in scores.items()}
    return OverallResult(decode_tokens_per_second=_decode_speed(runtime, texts), probes=probes, notes=notes)


def _decode_speed(runtime: Runtime, prompts: Sequence[str]) -> float:
    """Tokens per second after the first, over as many of the first four prompts as 32 tokens take."""
    tokens, seconds = 0, 0.0
    for prompt in prompts[:4]:
        last = None
        for piece in runtime.generate(prompt[:200], Sampling(max_tokens=_SPEED_TOKENS, temperature=0)):
            now = perf_counter()
            if last is not None:
                tokens, seconds = tokens + piece.tokens, seconds + now - last
            last = now
        if tokens >= _SPEED_TOKENS // 2:
            break
    return tokens / seconds if tokens and seconds else 0.0
