"""The inference cost of a model: bytes by part, load time, memory, prefill and decode throughput.

A child process loads and runs it, so that the peak memory is the model's alone.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from statistics import median

from slices.architecture.anatomy import count_parameters, read_anatomy
from slices.architecture.kv_cache import KvCacheBytes, kv_cache_bytes
from slices.checkpoint import open_checkpoint
from slices.errors import BadCheckpoint
from slices.files.child_process import run_child
from slices.gguf.header import read_gguf_header
from slices.report.evaluated_model import EvaluatedModel

ROUNDS = 5
_EMBEDDINGS = ("token_embd.weight", "output.weight")
_PER_LAYER_EMBEDDING = "per_layer_token_embd.weight"


@dataclass(frozen=True)
class Throughput:
    """Tokens per second over the rounds."""

    median: float
    min: float
    max: float


@dataclass(frozen=True)
class InferenceCost:
    """The cost of a model in a process of its own.

    Attributes:
        rss_bytes: resident memory after the last round; `peak_rss_bytes` the maximum.
        kv_cache_bytes_per_token: float16 K/V cache of a token inside the sliding window.
        kv_cache_bytes_per_token_beyond_window: of an earlier token, which only layers without a window keep.
    """

    bytes_by_part: dict[str, int]
    bits_per_weight: float
    load_seconds: float
    rss_bytes: int
    peak_rss_bytes: int
    kv_cache_bytes_per_token: int
    kv_cache_bytes_per_token_beyond_window: int
    prefill_tokens_per_second: Throughput
    decode_tokens_per_second: Throughput


def measure_cost(
    model: EvaluatedModel, prompt: str, threads: int | None = None, rounds: int = ROUNDS
) -> InferenceCost:
    """Load and run a model in a child process, `rounds` times after one warm-up.

    Raises:
        RunFailed: it does not run.
        BadCheckpoint: the folder of a GGUF has no config.json.
    """
    request = {
        "folder": str(model.folder),
        "file": model.file,
        "prompt": prompt,
        "threads": threads,
        "rounds": rounds,
    }
    lines: list[str] = []
    run_child("slices.report.cost_child", [json.dumps(request)], lines.append)
    measured = json.loads(lines[-1])
    parts, weights = _bytes_by_part(model)
    kv_cache = _kv_cache(model)
    return InferenceCost(
        bytes_by_part=parts,
        bits_per_weight=8 * sum(parts.values()) / weights,
        load_seconds=measured["load_seconds"],
        rss_bytes=measured["rss_bytes"],
        peak_rss_bytes=measured["peak_rss_bytes"],
        kv_cache_bytes_per_token=kv_cache.per_token,
        kv_cache_bytes_per_token_beyond_window=kv_cache.beyond_window,
        prefill_tokens_per_second=_throughput(measured["prefill"]),
        decode_tokens_per_second=_throughput(measured["decode"]),
    )


def _bytes_by_part(model: EvaluatedModel) -> tuple[dict[str, int], int]:
    """Bytes by part, and the number of weights."""
    if model.file is None:
        checkpoint = open_checkpoint(model.folder)
        counts, _ = count_parameters(read_anatomy(checkpoint.config))
        nbytes = sum(entry.nbytes for entry in checkpoint.entries)
        by_part = {"decoder": counts.decoder, "per_layer_embedding": counts.per_layer_embedding}
        by_part["embedding"] = counts.embedding
        return {part: round(nbytes * count / counts.total) for part, count in by_part.items()}, counts.total
    parts, weights = {"decoder": 0, "per_layer_embedding": 0, "embedding": 0}, 0
    for tensor in read_gguf_header(model.folder / model.file).tensors:
        parts[_part_of(tensor.name)] += tensor.nbytes
        weights += prod(tensor.shape)
    return parts, weights


def _part_of(tensor: str) -> str:
    if tensor == _PER_LAYER_EMBEDDING:
        return "per_layer_embedding"
    return "embedding" if tensor in _EMBEDDINGS else "decoder"


def _kv_cache(model: EvaluatedModel) -> KvCacheBytes:
    """K/V cache bytes of a token, by its config."""
    config = model.folder / "config.json"
    if not config.is_file():
        raise BadCheckpoint(f"{model.name}: without {config} the size of its K/V cache is not known")
    return kv_cache_bytes(read_anatomy(open_checkpoint(model.folder).config))


def _throughput(values: Sequence[float]) -> Throughput:
    return Throughput(median(values), min(values), max(values))
