"""The parent's plain quants on a domain's text: what any slice must beat at equal bytes.

A plain quant cuts nothing: the whole parent in a smaller type, with llama.cpp's embedding type or a smaller
one, with an importance matrix of the domain's calibration text where the type uses one. Each is made,
measured and deleted; its bytes and its bits by document are cached in `$MOM_HOME/plain`, one by one, so that
a run that was killed resumes.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slices.checkpoint import open_checkpoint
from slices.errors import BadConfig
from slices.estimate import Values
from slices.export import write_gguf
from slices.files import atomic
from slices.files.disk_space import check_free_space
from slices.files.temp_files import temp_dir
from slices.home import home
from slices.measure.bits_per_byte import score_text
from slices.measure.heldout import Heldout
from slices.measure.plain_sizes import VERSION, PlainType, plain_identity
from slices.progress import Progress, no_progress
from slices.quant.fit import imatrix_sha256
from slices.quant.imatrix_file import Imatrix
from slices.quant.quantize import quantize
from slices.quant.size import model_name
from slices.runtimes.llama_runtime import LlamaRuntime

Export = Callable[[], Path]


@dataclass(frozen=True)
class PlainQuant:
    """A measured plain quant. `bits`: what each document of the text takes, by number."""

    kind: PlainType
    bytes: int
    bits: tuple[float, ...]

    @property
    def label(self) -> str:
        """Its name in a table."""
        return self.kind.label

    @property
    def values(self) -> Values:
        """`bits` as an array (documents,)."""
        return np.array(self.bits)


@contextmanager
def bf16_export(parent: Path) -> Iterator[Export]:
    """A function that exports the parent as a BF16 GGUF when it is first called; removed at the end.

    Raises:
        SliceError: the disk is too small.
    """
    with temp_dir(home() / "plain") as scratch:
        path = scratch / "bf16.gguf"

        def export() -> Path:
            if not path.is_file():
                room = 2 * sum(entry.nbytes for entry in open_checkpoint(parent).entries)
                check_free_space(path, room, "the parent's bf16 export and a plain quant")
                write_gguf(parent, path, model_name(parent))
            return path

        yield export


def plain_quants(
    parent: Path,
    text: Heldout,
    types: Sequence[PlainType],
    export: Export,
    imatrix: Imatrix | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[PlainQuant]:
    """Plain quants of the parent, measured on `text`, in the order of `types`.

    Args:
        export: of `bf16_export`; not called where all are cached.
        imatrix: of the parent; types that use none ignore it.

    Raises:
        BadConfig: what is cached is damaged.
        RunFailed: llama.cpp cannot make or run one.
        SliceError: the disk is too small, or llama.cpp is not installed.
    """
    progress = progress or no_progress
    path, stamp = cache_file(parent, text, imatrix), _stamp(text, imatrix)
    known = _read(path, stamp, text.documents)
    missing = [each for each in types if each not in known]
    for number, each in enumerate(missing):
        progress(f"plain quant {number + 1} of {len(missing)}: {each.label}", number, len(missing))
        out = export().with_name("plain.gguf")
        known[each] = _measure_quant(parent, export(), each, imatrix, text, out, threads)
        _write(path, stamp, known.values())
    return [known[each] for each in types]


def count_missing(parent: Path, text: Heldout, types: Sequence[PlainType], imatrix: Imatrix | None) -> int:
    """How many of `types` are not cached for `text`."""
    known = _read(cache_file(parent, text, imatrix), _stamp(text, imatrix), text.documents)
    return sum(each not in known for each in types)


def cache_file(parent: Path, text: Heldout, imatrix: Imatrix | None) -> Path:
    """Where figures on `text` are cached."""
    weighed = imatrix_sha256(imatrix)[:16] if imatrix else "plain"
    return home() / "plain" / f"{plain_identity(parent)}-{text.sha256[:16]}-{weighed}.json"


def _stamp(text: Heldout, imatrix: Imatrix | None) -> dict[str, Any]:
    return {
        "version": VERSION,
        "text": text.sha256,
        "imatrix": imatrix_sha256(imatrix) if imatrix else None,
    }


def _measure_quant(
    parent: Path,
    exported: Path,
    each: PlainType,
    imatrix: Imatrix | None,
    text: Heldout,
    out: Path,
    threads: int | None,
) -> PlainQuant:
    quantized = quantize(
        parent,
        each.type,
        out,
        force=True,
        threads=threads,
        imatrix=imatrix if each.imatrix else None,
        embedding_type=None if each.type == "BF16" else each.embedding_type,
        exported=exported,
    )
    runtime = LlamaRuntime(out.resolve(), threads)  # the quantizer's check has loaded it in a child already
    try:
        bits = score_text(f"the parent as {each.label}", runtime, text).bits
    finally:
        runtime.close()
        out.unlink()
    return PlainQuant(kind=each, bytes=quantized.bytes, bits=tuple(bits.tolist()))


def _read(path: Path, stamp: dict[str, Any], documents: int) -> dict[PlainType, PlainQuant]:
    """What is cached; nothing where another version of mom wrote it."""
    if not path.is_file():
        return {}
    try:
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if stored.get("version") != VERSION:
            return {}
        found = [
            PlainQuant(
                kind=PlainType(**each["kind"]), bytes=int(each["bytes"]), bits=tuple(map(float, each["bits"]))
            )
            for each in stored["quants"]
        ]
        right = all(stored[key] == value for key, value in stamp.items())
        right = right and all(len(each.bits) == documents for each in found)
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise BadConfig(f"{path}: damaged: {error}; delete the file") from None
    if not right:
        raise BadConfig(f"{path}: it is of other text than it says; delete the file")
    return {each.kind: each for each in found}


def _write(path: Path, stamp: dict[str, Any], quants: Iterable[PlainQuant]) -> None:
    record = {**stamp, "quants": [asdict(each) for each in quants]}
    atomic.write_text(path, json.dumps(record, indent=1) + "\n")
