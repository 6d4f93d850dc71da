"""What can be measured: a checkpoint or one of its GGUF files, with a name and an identity."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from slices import manifest
from slices.checkpoint import fingerprint, open_checkpoint, weight_files
from slices.errors import NotFound
from slices.runtime import Runtime
from slices.runtimes.open import open_runtime


@dataclass(frozen=True)
class Subject:
    """Something to measure: the checkpoint in `folder`, or its GGUF `file`."""

    name: str
    folder: Path
    file: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of weights on disk."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def files(self) -> list[Path]:
        """The files that hold the weights."""
        return [self.folder / self.file] if self.file else weight_files(self.folder)

    def identity(self) -> str:
        """A digest of the weights: all of a GGUF, headers and a sample of every tensor of a checkpoint."""
        if self.file is None:
            return fingerprint(open_checkpoint(self.folder))
        with (self.folder / self.file).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def open(self, threads: int | None = None, context: int = 4096) -> Runtime:
        """Load it, as `slices.runtimes.open.open_runtime` does."""
        return open_runtime(self.folder, Path(self.file) if self.file else None, threads, context)


def subjects(path: Path) -> list[Subject]:
    """What there is to measure at `path`: a slice's checkpoint and its GGUFs, a plain checkpoint, or a GGUF.

    Raises:
        NotFound: nothing there can be run.
    """
    if path.is_file():
        return [Subject(path.stem, path.parent, path.name)]
    recorded = manifest.read(path) if (path / manifest.FILE).is_file() else None
    name = recorded.name if recorded else path.resolve().name
    found = [Subject(name, path)] if weight_files(path) else []
    found += [
        Subject(Path(each.file).stem, path, each.file) for each in (recorded.quantized if recorded else [])
    ]
    if not found:
        raise NotFound(f"{path} holds neither weights nor a GGUF to measure")
    return found
