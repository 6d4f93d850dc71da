"""Published tasks: any task of lm-evaluation-harness, run over our Runtime, so that its figures are theirs.

The harness brings definitions, prompts, few-shot examples and metrics; only the model is ours. Its datasets
come from a hub or, with task files of one's own in `include`, from local files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slices.errors import MissingExtra, NotFound
from slices.estimate import Estimate
from slices.runtime import Runtime, Sampling
from slices.tasks.likelihood import likelihoods

CONTEXT = 2048  # tokens that a task may take
_TOKENS = 256  # of an answer, where a task does not say


@dataclass(frozen=True)
class Figure:
    """One metric of one task over `items`, as the harness counts it; no `stderr`: NaN."""

    task: str
    metric: str
    found: Estimate
    items: int


def run_tasks(
    runtime: Runtime,
    names: Sequence[str],
    include: Path | None = None,
    limit: int | None = None,
    context: int = CONTEXT,
) -> list[Figure]:
    """Every metric of every task named.

    Args:
        include: a folder with task files, beside those that the harness ships.
        limit: items a task, the first ones; None is all.
        context: tokens that the runtime reads at once.

    Raises:
        MissingExtra: lm-eval is not installed.
        NotFound: the harness knows no such task.
    """
    model = language_model(runtime, context)
    from lm_eval import simple_evaluate

    manager = _task_manager(names, include)
    unknown = _unknown(manager, names)
    if unknown:
        raise NotFound(
            f"lm-eval knows no task {unknown[0]!r}; with --include DIR it reads task files of yours"
        )
    found = simple_evaluate(
        model=model, tasks=list(names), task_manager=manager, limit=limit, log_samples=False
    )
    return _figures(found)


def _task_manager(names: Sequence[str], include: Path | None) -> Any:
    """The tasks in `include` alone where they are enough: to read all of the harness's takes seconds."""
    from lm_eval.tasks import TaskManager

    if include is not None:
        own = TaskManager(include_path=str(include), include_defaults=False)
        if not own.all_groups and not _unknown(own, names):
            return own
    return TaskManager(include_path=None if include is None else str(include))


def _unknown(manager: Any, names: Sequence[str]) -> list[str]:
    return [name for name in names if not manager.match_tasks([name])]


def language_model(runtime: Runtime, context: int = CONTEXT) -> Any:
    """`runtime` as an `lm_eval.api.model.LM`.

    Raises:
        MissingExtra: lm-eval is not installed.
    """
    try:
        from lm_eval.api.model import LM
    except ImportError:
        raise MissingExtra("lm-eval", "harness") from None

    class RuntimeModel(LM):  # type: ignore[misc]
        """Requests are `Instance`s; what they hold is in `args`."""

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            return loglikelihood(runtime, [request.args for request in requests], context)

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            return [rolling(runtime, request.args[0], context) for request in requests]

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            told = [request.args for request in requests]
            return [generate(runtime, prompt, given, context) for prompt, given in told]

    return RuntimeModel()


def loglikelihood(
    runtime: Runtime, pairs: Sequence[tuple[str, str]], context: int
) -> list[tuple[float, bool]]:
    """Log probability of each continuation and whether it is greedy; those after one context together."""
    after: dict[str, dict[str, tuple[float, bool]]] = {}
    for before, each in pairs:
        after.setdefault(before, {})[each] = (0.0, False)
    for before, known in after.items():
        for each, likely in zip(list(known), likelihoods(runtime, before, list(known), context), strict=True):
            known[each] = (likely.logprob, likely.greedy)
    return [after[before][each] for before, each in pairs]


def rolling(runtime: Runtime, text: str, context: int) -> float:
    """Log probability of a whole text, in windows side by side, each token scored once."""
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    first, *tokens = runtime.encode(text)
    windows = get_rolling_token_windows(tokens, first, max_seq_len=context - 1, context_len=1)
    total = 0.0
    for before, after in map(make_disjoint_window, windows):
        total += float(runtime.logprobs([*before, *after])[-len(after) :].sum())
    return total


def generate(runtime: Runtime, prompt: str, given: Mapping[str, Any], context: int) -> str:
    """What is written after `prompt`, up to one of `given["until"]`; long prompts lose their beginning."""
    until = given.get("until") or []
    until = [until] if isinstance(until, str) else until
    most = int(given.get("max_gen_toks", _TOKENS))
    sampling = Sampling(
        max_tokens=most,
        temperature=float(given.get("temperature", 0.0)) if given.get("do_sample") else 0.0,
        stop=tuple(until),
    )
    while len(runtime.encode(prompt)) > max(1, context - most) and len(prompt) > 1:
        prompt = prompt[len(prompt) // 10 + 1 :]
    told = "".join(piece.text for piece in runtime.generate(prompt, sampling))
    for end in until:
        told = told.split(end, 1)[0]
    return told


def _figures(found: Mapping[str, Any]) -> list[Figure]:
    """The harness's own table, flat: its keys are "metric,filter" and "metric_stderr,filter"."""
    figures = []
    for task, values in found["results"].items():
        items = int(found["n-samples"].get(task, {}).get("effective", 0))
        for key, value in values.items():
            metric, _, filtered = key.partition(",")
            if not filtered or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = values.get(f"{metric}_stderr,{filtered}")
            stderr = float(error) if isinstance(error, int | float) else float("nan")
            name = metric if filtered == "none" else f"{metric} ({filtered})"
            figures.append(Figure(task, name, Estimate(float(value), stderr), items))
    return figures
