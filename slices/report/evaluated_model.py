"""The model under evaluation: a checkpoint or one of its GGUF files, with a name and a fingerprint."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from slices import manifest
from slices.architecture.anatomy import read_anatomy
from slices.checkpoint import fingerprint, open_checkpoint, weight_files
from slices.errors import NotFound
from slices.gguf.header import read_gguf_header
from slices.gguf.layout import setting
from slices.heal.control import is_control
from slices.runtime import Runtime
from slices.runtimes.open import open_runtime


@dataclass(frozen=True)
class EvaluatedModel:
    """A model under evaluation: the checkpoint in `folder`, or its GGUF `file`."""

    name: str
    folder: Path
    file: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of weights on disk."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def files(self) -> list[Path]:
        """The files of the weights."""
        return [self.folder / self.file] if self.file else weight_files(self.folder)

    @property
    def domain(self) -> str | None:
        """The domain that a slice was cut for; None for other models, and for the control of a healing."""
        if not (self.folder / manifest.FILE).is_file():
            return None
        made = manifest.read(self.folder)
        return None if is_control(made) else made.domain

    def fingerprint(self) -> str:
        """A digest of the weights: a whole GGUF, or a checkpoint's headers and a sample of each tensor."""
        if self.file is None:
            return fingerprint(open_checkpoint(self.folder))
        with (self.folder / self.file).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def context_length(self) -> int | None:
        """The tokens of context that the model was trained with; None where its files do not say.

        Raises:
            BadCheckpoint: the GGUF header or config.json is malformed.
        """
        if self.file is not None:
            length = setting(read_gguf_header(self.folder / self.file), "context_length")
        else:
            length = read_anatomy(open_checkpoint(self.folder).config).config.get("max_position_embeddings")
        return int(length) if length else None

    def open(self, threads: int | None = None, context_length: int = 4096) -> Runtime:
        """Load it, as `slices.runtimes.open.open_runtime` does."""
        return open_runtime(self.folder, Path(self.file) if self.file else None, threads, context_length)


def find_models(path: Path) -> list[EvaluatedModel]:
    """The models at `path`: a slice's checkpoint and its GGUF files, a plain checkpoint, or one GGUF file.

    Raises:
        NotFound: there is no model.
    """
    if path.is_file():
        return [EvaluatedModel(path.stem, path.parent, path.name)]
    recorded = manifest.read(path) if (path / manifest.FILE).is_file() else None
    name = recorded.name if recorded else path.resolve().name
    models = [EvaluatedModel(name, path)] if weight_files(path) else []
    models += [
        EvaluatedModel(Path(each.file).stem, path, each.file)
        for each in (recorded.quantized if recorded else [])
    ]
    if not models:
        raise NotFound(f"{path} holds neither weights nor a GGUF to measure")
    return models
