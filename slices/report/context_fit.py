"""Windows and needles that fit the context of every model; shortened for all, since they share the text."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from slices.measure.long_text import LENGTHS
from slices.measure.tokenized import tokenize_windows
from slices.report.config import NEEDLE_MARGIN, EvalConfig
from slices.report.eval_task import EvalTask
from slices.report.evaluate import heldout_windows, open_model
from slices.report.evaluated_model import EvaluatedModel

_MIN_WINDOW = 16  # bytes
_SHRINK = 0.95  # beyond what the longest window calls for
Texts = Mapping[str, Sequence[str]]


def fit_context(
    models: Sequence[EvaluatedModel], texts: Texts, config: EvalConfig
) -> tuple[EvalConfig, list[str]]:
    """`config` for the model of the smallest context, and a notice for each change, which names the model.

    Args:
        texts: held-out documents by domain.

    Raises:
        NotFound, BadCheckpoint, MissingExtra, RunFailed: that model cannot be opened.
    """
    lengths = {model: length for model in models if (length := model.context_length()) is not None}
    if not lengths or min(lengths.values()) >= config.context_length:
        return config, []
    model = min(lengths, key=lengths.__getitem__)
    length = lengths[model]
    fitted = _fit_windows(model, texts, replace(config, max_context=length), length)
    if EvalTask.PROBES in config.tasks:
        kept = tuple(each for each in config.needle_lengths if each + NEEDLE_MARGIN <= length)
        fitted = replace(fitted, needle_lengths=kept)
    label = f"{model.name} has a context of {length:,} tokens"
    return fitted, [f"{label}: {change}" for change in _changes(config, fitted)]


def fit_long_windows(models: Sequence[EvaluatedModel]) -> tuple[int, list[str]]:
    """Tokens of the longest window of long text that every model takes, 0 for none; a notice if shortened."""
    lengths = {model: length for model in models if (length := model.context_length()) is not None}
    if not lengths or min(lengths.values()) >= LENGTHS[-1]:
        return LENGTHS[-1], []
    model = min(lengths, key=lengths.__getitem__)
    longest = max((length for length in LENGTHS if length <= lengths[model]), default=0)
    windows = f"of at most {longest:,} tokens" if longest else f"none, which takes {LENGTHS[0]:,}"
    return longest, [f"{model.name} has a context of {lengths[model]:,} tokens: long text {windows}"]


def _changes(config: EvalConfig, fitted: EvalConfig) -> list[str]:
    changes = []
    if fitted.window_bytes < config.window_bytes:
        sizes = f"from {config.window_bytes:,} to {fitted.window_bytes:,} bytes"
        changes.append(f"the windows of all models are shortened {sizes}")
    dropped = [f"{each:,}" for each in config.needle_lengths if each not in fitted.needle_lengths]
    if dropped:
        changes.append(f"no needle in a haystack of {', '.join(dropped)} tokens")
    return changes


def _fit_windows(model: EvaluatedModel, texts: Texts, config: EvalConfig, length: int) -> EvalConfig:
    if length >= config.window_bytes + 2:  # one token a byte at most
        return config
    runtime = open_model(model, config)
    try:
        while config.window_bytes > _MIN_WINDOW:
            windows = heldout_windows(texts, config)
            passages = [
                each for text in windows.values() for each in tokenize_windows(model.name, runtime, text)
            ]
            longest = max(len(passage.tokens) for passage in passages)
            if longest <= length:
                break
            window = max(_MIN_WINDOW, int(_SHRINK * config.window_bytes * length / longest))
            stride = None if config.stride_bytes is None else min(config.stride_bytes, window)
            config = replace(config, window_bytes=window, stride_bytes=stride)
    finally:
        runtime.close()
    return config
