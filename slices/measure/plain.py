"""The parent's plain quants on a domain's held-out text: what any slice must beat at equal bytes.

A plain quant cuts nothing: the whole parent in a smaller type, with llama.cpp's embedding type or a smaller
one. Each is made, measured and deleted; its bytes and its bits by document are cached in `$MOM_HOME/plain`.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slices.checkpoint import fingerprint, open_checkpoint
from slices.errors import BadConfig
from slices.estimate import Values
from slices.export import write_gguf
from slices.files import atomic
from slices.files.disk_space import check_free_space
from slices.files.safetensors_header import parse_json_object
from slices.files.temp_files import temp_dir
from slices.home import home
from slices.measure.bits_per_byte import score_text
from slices.measure.heldout import Heldout
from slices.progress import Progress
from slices.quant.quantize import quantize
from slices.quant.recipe import make_recipe
from slices.quant.size import model_name, predict_sizes
from slices.quant.types import LLAMA_CPP
from slices.runtimes.open import open_runtime

TYPES = ("Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "BF16")
EMBEDDING_TYPES = (LLAMA_CPP, "Q4_K")
NEAREST = 3  # of those that are small enough, the largest are measured


@dataclass(frozen=True)
class PlainQuant:
    """A quant of the whole parent. `bits`: what each held-out document takes, by number."""

    type: str
    embedding_type: str
    bytes: int
    bits: tuple[float, ...]

    @property
    def label(self) -> str:
        """As people say it."""
        same = self.embedding_type == LLAMA_CPP
        return self.type if same else f"{self.type} with {self.embedding_type} embeddings"

    @property
    def values(self) -> Values:
        """`bits` as an array (documents,)."""
        return np.array(self.bits)


def plain_quants(
    parent: Path, text: Heldout, max_bytes: int, threads: int | None = None, progress: Progress | None = None
) -> list[PlainQuant]:
    """The parent's largest plain quants of at most `most` bytes, measured on `text`; smallest first.

    Raises:
        BadConfig: what is kept is damaged.
        RunFailed: llama.cpp cannot make or run one.
        SliceError: the disk is too small, or llama.cpp is not installed.
    """
    identity = fingerprint(open_checkpoint(parent))[:16]
    path = home() / "plain" / f"{identity}-{text.sha256[:16]}.json"
    sizes = plain_sizes(parent)
    wanted = [each for each, size in sizes.items() if size <= max_bytes][-NEAREST:]
    known = _read(path, text)
    missing = [each for each in wanted if each not in known]
    if missing:
        with temp_dir(path.parent) as scratch:
            exported = scratch / "bf16.gguf"
            room = 2 * sum(entry.nbytes for entry in open_checkpoint(parent).entries)
            check_free_space(exported, room, "the parent's bf16 export and a plain quant")
            write_gguf(parent, exported, model_name(parent))
            for number, each in enumerate(missing):
                if progress:
                    progress("measure the parent's plain quants", number, len(missing))
                known[each] = _measure_quant(parent, exported, each, text, scratch / "plain.gguf", threads)
                _write(path, text, known.values())
    return [known[each] for each in wanted]


def plain_sizes(parent: Path) -> dict[tuple[str, str], int]:
    """Bytes of every plain quant of the parent, the smallest first, by type and embedding type; cached."""
    path = home() / "plain" / f"{fingerprint(open_checkpoint(parent))[:16]}-sizes.json"
    if path.is_file():
        stored = parse_json_object(path.read_bytes(), path)
        return {(type, embedding_type): size for type, embedding_type, size in stored["sizes"]}
    with temp_dir(path.parent) as scratch:
        found = _predict_sizes(parent, scratch / "header.gguf")
    rows = [[*each, size] for each, size in found.items()]
    atomic.write_text(path, json.dumps({"sizes": rows}, indent=1) + "\n")
    return found


def _predict_sizes(parent: Path, header: Path) -> dict[tuple[str, str], int]:
    write_gguf(parent, header, model_name(parent), data=False)
    kinds = _kinds()
    recipes = [
        make_recipe(type, None if type == "BF16" else embedding_type) for type, embedding_type in kinds
    ]
    sizes: dict[int, tuple[str, str]] = {}
    for kind, found in zip(kinds, predict_sizes(header, recipes, with_imatrix=False), strict=True):
        if found is not None:
            sizes.setdefault(found.bytes, kind)
    return {sizes[size]: size for size in sorted(sizes)}


def _kinds() -> list[tuple[str, str]]:
    """Pairs of type and embedding type: every type with each, the smallest with the smallest."""
    kinds = [
        (type, other) for type in TYPES for other in EMBEDDING_TYPES if (type, other) != ("BF16", "Q4_K")
    ]
    return [*kinds, ("Q2_K", "Q2_K")]


def _measure_quant(
    parent: Path, exported: Path, each: tuple[str, str], text: Heldout, out: Path, threads: int | None
) -> PlainQuant:
    type, embedding_type = each
    own_embedding_type = None if type == "BF16" else embedding_type
    quantized = quantize(
        parent, type, out, force=True, threads=threads, embedding_type=own_embedding_type, exported=exported
    )
    runtime = open_runtime(parent, out.resolve(), threads)
    try:
        bits = score_text(f"the parent as {type}", runtime, text).bits
    finally:
        runtime.close()
        out.unlink()
    return PlainQuant(
        type=type, embedding_type=embedding_type, bytes=quantized.bytes, bits=tuple(bits.tolist())
    )


def _read(path: Path, text: Heldout) -> dict[tuple[str, str], PlainQuant]:
    if not path.is_file():
        return {}
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = [
            PlainQuant(
                type=e["type"],
                embedding_type=e["embedding_type"],
                bytes=int(e["bytes"]),
                bits=tuple(map(float, e["bits"])),
            )
            for e in stored["quants"]
        ]
        right = stored["text"] == text.sha256 and all(len(e.bits) == text.documents for e in found)
    except (ValueError, KeyError, TypeError) as error:
        raise BadConfig(f"{path}: damaged: {error}; delete the file") from None
    if not right:
        raise BadConfig(f"{path}: it is of other text than it says; delete the file")
    return {(each.type, each.embedding_type): each for each in found}


def _write(path: Path, text: Heldout, quants: Iterable[PlainQuant]) -> None:
    record = {"text": text.sha256, "quants": [asdict(each) for each in quants]}
    atomic.write_text(path, json.dumps(record, indent=1) + "\n")
