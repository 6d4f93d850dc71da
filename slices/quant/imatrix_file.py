"""An importance matrix and its file: the GGUF that `llama-imatrix` writes and `llama-quantize` reads.

The mean of the squared input of every column of every matrix, measured on a text: what the quantizer of
llama.cpp weighs rounding errors by. The file holds sums and counts, so that files can be added up; a matrix
of n experts has n counts. Beside llama.cpp's own keys it says which text was read. How the figures are
measured is in `slices.quant.imatrix`. The older format (`.dat`) is not read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slices.errors import BadCheckpoint, MissingExtra
from slices.files.atomic import staged
from slices.gguf.header import GGUFHeader, GGUFTensor, read_gguf_header
from slices.quant.calibration import CONTEXT

if TYPE_CHECKING:
    import gguf

Floats = NDArray[np.float32]
Counts = NDArray[np.int64]
_SUMS, _COUNTS = ".in_sum2", ".counts"
_DATASETS, _CHUNKS, _CHUNK = "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"
_SHA256, _TOKENS = "mom.imatrix.text_sha256", "mom.imatrix.tokens"
_F32 = 0  # ggml's number


@dataclass(frozen=True)
class Imatrix:
    """Mean squared inputs of the matrices of one GGUF, by the tensor's name there.

    `values` are float32, (columns,) or (experts * columns,); `counts` are the rows that they are means of,
    int64, (1,) or (experts,). An expert that no token reached has count 0 and values 1, as in
    llama-quantize: all its columns weigh the same. `sha256` is the text's, "" where the file does not say.
    """

    values: Mapping[str, Floats]
    counts: Mapping[str, Counts]
    tokens: int
    sha256: str = ""
    context: int = CONTEXT
    datasets: tuple[str, ...] = ()


def means(sums: NDArray[np.floating], counts: Counts, where: str) -> Floats:
    """Sums of squares (experts, columns) over counts (experts,), flat; 1 for an expert that no row reached.

    Raises:
        BadCheckpoint: a sum is not finite or is negative; `where` names it.
    """
    if not (np.isfinite(sums).all() and (sums >= 0).all()):
        wrong = sums[~(np.isfinite(sums) & (sums >= 0))].flat[0]
        raise BadCheckpoint(f"{where}: expected sums of squared inputs, found {wrong}")
    mean = sums.astype(np.float64) / np.maximum(counts, 1)[:, None]
    mean[counts == 0] = 1.0
    return mean.astype(np.float32).reshape(-1)


def write_imatrix(imatrix: Imatrix, out: Path, force: bool = False) -> Path:
    """Write the standard file: for every matrix `<name>.in_sum2` (experts, columns) and `<name>.counts`.

    Raises:
        Exists: `out` is there and `force` is false.
        MissingExtra: gguf is not installed.
    """
    try:
        import gguf
    except ImportError:
        raise MissingExtra("gguf", "quantize") from None
    with staged(out, force) as partial:
        writer = gguf.GGUFWriter(partial, "")
        try:
            _write(writer, imatrix)
        finally:
            writer.close()
    return out


def _write(writer: "gguf.GGUFWriter", imatrix: Imatrix) -> None:
    writer.kv_data[0].pop("general.architecture", None)  # it is no model
    writer.add_type("imatrix")
    writer.add_array(_DATASETS, list(imatrix.datasets) or [imatrix.sha256 or "unknown"])
    writer.add_uint32(_CHUNKS, max(1, imatrix.tokens // imatrix.context))
    writer.add_uint32(_CHUNK, imatrix.context)
    writer.add_string(_SHA256, imatrix.sha256)
    writer.add_uint64(_TOKENS, imatrix.tokens)
    for name in sorted(imatrix.values):
        counts = imatrix.counts[name]
        sums = imatrix.values[name].reshape(len(counts), -1).astype(np.float64) * counts[:, None]
        writer.add_tensor(name + _SUMS, sums.astype(np.float32))
        writer.add_tensor(name + _COUNTS, counts.astype(np.float32)[:, None])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()


def read_imatrix(path: Path) -> Imatrix:
    """Read an importance matrix, ours or one of `llama-imatrix`.

    Where the file does not say how many tokens were read, the largest count of a dense matrix stands for it.

    Raises:
        NotFound: there is no such file.
        BadCheckpoint: it is no GGUF of an importance matrix, or is damaged; the tensor is named.
    """
    header = read_gguf_header(path)
    if header.metadata.get("general.type") != "imatrix":
        found = header.metadata.get("general.type")
        raise BadCheckpoint(f"{path}: expected a GGUF of general.type 'imatrix', found {found!r}")
    stored = {tensor.name: tensor for tensor in header.tensors}
    values: dict[str, Floats] = {}
    counts: dict[str, Counts] = {}
    for name in _named(stored, path):
        sums = _read(stored[name + _SUMS], path)
        counts[name] = _counts(_read(stored[name + _COUNTS], path), sums, f"{path}: {name}")
        values[name] = means(sums.reshape(len(counts[name]), -1), counts[name], f"{path}: {name}")
    return _described(header, values, counts, path)


def _named(stored: Mapping[str, GGUFTensor], path: Path) -> list[str]:
    """The matrices that the file speaks of."""
    halves = [{n.removesuffix(end) for n in stored if n.endswith(end)} for end in (_SUMS, _COUNTS)]
    lone = halves[0] ^ halves[1]
    if lone:
        raise BadCheckpoint(f"{path}: {min(lone)!r} needs both {_SUMS!r} and {_COUNTS!r}, found one of them")
    if not halves[0]:
        raise BadCheckpoint(f"{path}: expected tensors named '<matrix>{_SUMS}', found none")
    return sorted(halves[0])


def _read(tensor: GGUFTensor, path: Path) -> Floats:
    if tensor.type != _F32:
        raise BadCheckpoint(f"{path}: {tensor.name!r} is of ggml type {tensor.type}; expected F32 (0)")
    return np.fromfile(path, "<f4", tensor.weights, offset=tensor.start).astype(np.float32)


def _counts(stored: Floats, sums: Floats, where: str) -> Counts:
    if not len(stored) or len(sums) % len(stored):
        raise BadCheckpoint(f"{where}: {len(sums)} sums cannot be shared out to {len(stored)} counts")
    if not (np.isfinite(stored).all() and (stored >= 0).all() and (stored < 2**53).all()):
        raise BadCheckpoint(f"{where}: expected counts of tokens, found {stored[:4].tolist()}")
    return np.rint(stored).astype(np.int64)


def _described(
    header: GGUFHeader, values: Mapping[str, Floats], counts: Mapping[str, Counts], path: Path
) -> Imatrix:
    context, datasets = header.metadata.get(_CHUNK, CONTEXT), header.metadata.get(_DATASETS, [])
    largest = max((int(each[0]) for each in counts.values() if len(each) == 1), default=0)
    tokens = header.metadata.get(_TOKENS, largest)
    if not (isinstance(context, int) and context > 0 and isinstance(tokens, int)):
        raise BadCheckpoint(f"{path}: expected a number of tokens, found {_CHUNK} = {context!r}, {tokens!r}")
    known = tuple(map(str, datasets)) if isinstance(datasets, list) else ()
    return Imatrix(
        values=values,
        counts=counts,
        tokens=tokens,
        sha256=str(header.metadata.get(_SHA256, "")),
        context=context,
        datasets=known,
    )
