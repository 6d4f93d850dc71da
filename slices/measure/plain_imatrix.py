"""The importance matrix of a whole parent on a domain's calibration text, measured once.

It is what `slices.quant.imatrix` measures for a slice, so that a plain quant is made as well as the slice's
own file could be. Kept in llama.cpp's format in `$MOM_HOME/plain`.
"""

from collections.abc import Sequence
from pathlib import Path

from slices.home import home
from slices.measure.plain_sizes import plain_identity
from slices.progress import Progress, no_progress
from slices.quant.imatrix import collect
from slices.quant.imatrix_file import Imatrix, read_imatrix, write_imatrix
from slices.text.corpus import Corpus


def plain_imatrix(parent: Path, documents: Sequence[str], progress: Progress | None = None) -> Imatrix | None:
    """The parent's importance matrix on `documents`, calibration text; None where there are none.

    Raises:
        BadCheckpoint: the parent, or the file that is kept, is damaged.
        SliceError: torch or transformers is not installed, or llama.cpp has no names for the tensors.
    """
    if not documents:
        return None
    path = _path(parent, documents)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_imatrix(collect(parent, documents, progress=progress or no_progress), path, force=True)
    return read_imatrix(path)


def cached_imatrix(parent: Path, documents: Sequence[str]) -> Imatrix | None:
    """The same if it was measured before, else None.

    Raises:
        BadCheckpoint: the file is damaged.
    """
    path = _path(parent, documents)
    return read_imatrix(path) if path.is_file() else None


def _path(parent: Path, documents: Sequence[str]) -> Path:
    text = Corpus("files", tuple(documents))
    return home() / "plain" / f"{plain_identity(parent)}-{text.sha256[:16]}-imatrix.gguf"
