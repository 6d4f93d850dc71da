"""Tasks of lm-evaluation-harness over a `Runtime`, so that results are comparable with published ones.

The harness brings task definitions, prompts, few-shot examples and metrics; only the model is ours. Its
datasets come from a hub or, with task files of one's own in `include_path`, from local files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slices.errors import MissingExtra, NotFound
from slices.runtime import Runtime, Sampling
from slices.tasks.loglikelihood import loglikelihoods

MAX_LENGTH = 2048  # tokens of a request
_MAX_GEN_TOKS = 256  # where a task sets none


@dataclass(frozen=True)
class HarnessResult:
    """One metric of one task over `n` samples, as the harness computes it; NaN where it has no `stderr`."""

    task: str
    metric: str
    value: float
    stderr: float
    n: int


def run_harness(
    runtime: Runtime,
    tasks: Sequence[str],
    include_path: Path | None = None,
    limit: int | None = None,
    max_length: int = MAX_LENGTH,
) -> list[HarnessResult]:
    """Every metric of every task.

    Args:
        include_path: a folder of task files, in addition to those of the harness.
        limit: samples of a task, the first ones; None for all.
        max_length: tokens that the runtime takes at once.

    Raises:
        MissingExtra: lm-eval is not installed.
        NotFound: the harness knows no such task.
    """
    model = language_model(runtime, max_length)
    from lm_eval import simple_evaluate

    manager = _task_manager(tasks, include_path)
    unknown = _unknown(manager, tasks)
    if unknown:
        raise NotFound(
            f"lm-eval has no task {unknown[0]!r}; --include-path DIR adds the task files in a folder"
        )
    results = simple_evaluate(
        model=model, tasks=list(tasks), task_manager=manager, limit=limit, log_samples=False
    )
    return _flatten(results)


def _task_manager(tasks: Sequence[str], include_path: Path | None) -> Any:
    """The tasks in `include_path` alone where they are enough: the harness's own take seconds to index."""
    from lm_eval.tasks import TaskManager

    if include_path is not None:
        own = TaskManager(include_path=str(include_path), include_defaults=False)
        if not own.all_groups and not _unknown(own, tasks):
            return own
    return TaskManager(include_path=None if include_path is None else str(include_path))


def _unknown(manager: Any, tasks: Sequence[str]) -> list[str]:
    return [task for task in tasks if not manager.match_tasks([task])]


def language_model(runtime: Runtime, max_length: int = MAX_LENGTH) -> Any:
    """`runtime` as an `lm_eval.api.model.LM`.

    Raises:
        MissingExtra: lm-eval is not installed.
    """
    try:
        from lm_eval.api.model import LM
    except ImportError:
        raise MissingExtra("lm-eval", "harness") from None

    class RuntimeModel(LM):  # type: ignore[misc]
        """Each request is an `Instance`; its arguments are in `args`."""

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            return loglikelihood(runtime, [request.args for request in requests], max_length)

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            return [loglikelihood_rolling(runtime, request.args[0], max_length) for request in requests]

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            arguments = [request.args for request in requests]
            return [generate_until(runtime, prompt, kwargs, max_length) for prompt, kwargs in arguments]

    return RuntimeModel()


def loglikelihood(
    runtime: Runtime, pairs: Sequence[tuple[str, str]], max_length: int
) -> list[tuple[float, bool]]:
    """Log-likelihood of each (context, continuation) and whether it is greedy, grouped by context."""
    by_context: dict[str, dict[str, tuple[float, bool]]] = {}
    for context, continuation in pairs:
        by_context.setdefault(context, {})[continuation] = (0.0, False)
    for context, results in by_context.items():
        scored = loglikelihoods(runtime, context, list(results), max_length)
        for continuation, result in zip(list(results), scored, strict=True):
            results[continuation] = (result.logprob, result.is_greedy)
    return [by_context[context][continuation] for context, continuation in pairs]


def loglikelihood_rolling(runtime: Runtime, text: str, max_length: int) -> float:
    """Log-likelihood of a whole text, in disjoint windows, each token scored once."""
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    first, *tokens = runtime.encode(text)
    windows = get_rolling_token_windows(tokens, first, max_seq_len=max_length - 1, context_len=1)
    total = 0.0
    for context, continuation in map(make_disjoint_window, windows):
        total += float(runtime.logprobs([*context, *continuation])[-len(continuation) :].sum())
    return total


def generate_until(runtime: Runtime, prompt: str, gen_kwargs: Mapping[str, Any], max_length: int) -> str:
    """The completion of `prompt` up to one of `gen_kwargs["until"]`; the prompt is truncated on the left."""
    until = gen_kwargs.get("until") or []
    until = [until] if isinstance(until, str) else until
    max_tokens = int(gen_kwargs.get("max_gen_toks", _MAX_GEN_TOKS))
    sampling = Sampling(
        max_tokens=max_tokens,
        temperature=float(gen_kwargs.get("temperature", 0.0)) if gen_kwargs.get("do_sample") else 0.0,
        stop=tuple(until),
    )
    while len(runtime.encode(prompt)) > max(1, max_length - max_tokens) and len(prompt) > 1:
        prompt = prompt[len(prompt) // 10 + 1 :]
    completion = "".join(piece.text for piece in runtime.generate(prompt, sampling))
    for stop in until:
        completion = completion.split(stop, 1)[0]
    return completion


def _flatten(results: Mapping[str, Any]) -> list[HarnessResult]:
    """The harness's results as a list: its keys are "metric,filter" and "metric_stderr,filter"."""
    flat = []
    for task, values in results["results"].items():
        n = int(results["n-samples"].get(task, {}).get("effective", 0))
        for key, value in values.items():
            metric, _, filter_name = key.partition(",")
            if not filter_name or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = values.get(f"{metric}_stderr,{filter_name}")
            stderr = float(error) if isinstance(error, int | float) else float("nan")
            name = metric if filter_name == "none" else f"{metric} ({filter_name})"
            flat.append(HarnessResult(task=task, metric=name, value=float(value), stderr=stderr, n=n))
    return flat
