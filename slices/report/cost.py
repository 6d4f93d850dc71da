"""What a model costs to run: bytes by part, loading, memory, speed with its spread.

Loading and running happen in a process of their own, so that its peak is the model's and nothing else's.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from slices.architecture.anatomy import count_parameters, read_anatomy
from slices.checkpoint import open_checkpoint
from slices.errors import BadCheckpoint
from slices.families.table import SLIDING
from slices.files.child_process import run_child
from slices.gguf.header import read_gguf_header
from slices.report.subject import Subject

ROUNDS = 5
_TABLES = {"token_embd.weight": "embedding", "output.weight": "embedding"}
_PLE = "per_layer_token_embd.weight"
_F16 = 2  # bytes of a cached number


@dataclass(frozen=True)
class Speed:
    """Tokens a second over the rounds."""

    median: float
    min: float
    max: float


@dataclass(frozen=True)
class Cost:
    """Bytes unless said otherwise. `kv_token` is the float16 K/V cache of a token inside the window,
    `kv_token_beyond` of one further back, which only full-attention layers keep. `resident_bytes` is after a
    run, `peak_bytes` the most there was, both of a process with this model alone.
    """

    parts: dict[str, int]
    bits_per_weight: float
    load_seconds: float
    resident_bytes: int
    peak_bytes: int
    kv_token: int
    kv_token_beyond: int
    prompt_tokens_per_second: Speed
    written_tokens_per_second: Speed


def measure_cost(subject: Subject, prompt: str, threads: int | None = None, rounds: int = ROUNDS) -> Cost:
    """Load and run a model in a child process, `rounds` times after one that warms up.

    Raises:
        RunFailed: it does not run.
        BadCheckpoint: the folder of a GGUF says nothing of its layers.
    """
    order: dict[str, object] = {"folder": str(subject.folder), "file": subject.file, "prompt": prompt}
    order |= {"threads": threads, "rounds": rounds}
    lines: list[str] = []
    run_child("slices.report.cost_child", [json.dumps(order)], lines.append)
    found = json.loads(lines[-1])
    parts, weights = _parts(subject)
    inside, beyond = _cache(subject)
    return Cost(
        parts=parts,
        bits_per_weight=8 * sum(parts.values()) / weights,
        load_seconds=found["load_seconds"],
        resident_bytes=found["resident_bytes"],
        peak_bytes=found["peak_bytes"],
        kv_token=inside,
        kv_token_beyond=beyond,
        prompt_tokens_per_second=_speed(found["prompt"]),
        written_tokens_per_second=_speed(found["written"]),
    )


def _parts(subject: Subject) -> tuple[dict[str, int], int]:
    """Bytes by part, and how many weights there are."""
    if subject.file is None:
        checkpoint = open_checkpoint(subject.folder)
        counts, _ = count_parameters(read_anatomy(checkpoint.config))
        size = sum(entry.nbytes for entry in checkpoint.entries)
        shares = {"decoder": counts.decoder, "per_layer_embedding": counts.per_layer_embedding}
        shares["embedding"] = counts.embedding
        return {part: round(size * count / counts.total) for part, count in shares.items()}, counts.total
    parts, weights = {"decoder": 0, "per_layer_embedding": 0, "embedding": 0}, 0
    for tensor in read_gguf_header(subject.folder / subject.file).tensors:
        part = "per_layer_embedding" if tensor.name == _PLE else _TABLES.get(tensor.name, "decoder")
        parts[part] += tensor.nbytes
        count = 1
        for side in tensor.shape:
            count *= side
        weights += count
    return parts, weights


def _cache(subject: Subject) -> tuple[int, int]:
    """Bytes of cache for a token in the window, and beyond it."""
    config = subject.folder / "config.json"
    if not config.is_file():
        raise BadCheckpoint(f"{subject.name}: without {config} the size of its cache is not known")
    layers = read_anatomy(open_checkpoint(subject.folder).config).layers
    own = [layer for layer in layers if not layer.shared]
    sizes = [2 * layer.kv_heads * layer.head_dim * _F16 for layer in own]
    full = [size for size, layer in zip(sizes, own, strict=True) if layer.type != SLIDING]
    return sum(sizes), sum(full)


def _speed(values: Sequence[float]) -> Speed:
    return Speed(median(values), min(values), max(values))
