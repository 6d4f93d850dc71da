"""The recipe that a slice was healed for (`mom heal --qat`), which its quantization takes as its default."""

from dataclasses import dataclass
from pathlib import Path

from slices import manifest
from slices.errors import BadCheckpoint, NotFound
from slices.quant.fit import imatrix_sha256
from slices.quant.imatrix_file import Imatrix, read_imatrix

KEY = "quantization"  # in slice.json, under `healing`
IMATRIX_FILE = "imatrix-qat.gguf"


@dataclass(frozen=True)
class TrainedRecipe:
    """A type, the embeddings' type (None: llama.cpp's choice), and the digest of its importance matrix."""

    type: str
    embedding_type: str | None
    imatrix_sha256: str | None

    @property
    def sentence(self) -> str:
        """What is taken from it."""
        weighted = "its importance matrix" if self.imatrix_sha256 else "no importance matrix"
        embeddings = f"embeddings {self.embedding_type or 'as llama.cpp chooses'}"
        return f"as the slice was healed for: {self.type}, {embeddings}, {weighted}"


def read_trained_recipe(folder: Path) -> TrainedRecipe | None:
    """The recipe that the slice in `folder` was healed for, None if for none or if it is no slice."""
    if not (folder / manifest.FILE).is_file():
        return None
    found = (manifest.read(folder).healing or {}).get(KEY)
    if found is None:
        return None
    return TrainedRecipe(found["type"], found["embedding_type"], found["imatrix_sha256"])


def read_trained_imatrix(folder: Path, recipe: TrainedRecipe) -> Imatrix | None:
    """The importance matrix that the slice was healed with, None for none.

    Raises:
        NotFound: its file is gone.
        BadCheckpoint: it is another one.
    """
    if recipe.imatrix_sha256 is None:
        return None
    file = folder / IMATRIX_FILE
    if not file.is_file():
        raise NotFound(f"{file}, with which the slice was healed, is gone: say --imatrix domain or none")
    imatrix = read_imatrix(file)
    if imatrix_sha256(imatrix) != recipe.imatrix_sha256:
        raise BadCheckpoint(f"{file} is not the importance matrix that the slice was healed with")
    return imatrix
