"""Which text each step of making a slice read, as slice.json records it."""

from pathlib import Path

from slices import manifest
from slices.text.corpus import Corpus, Part


def text_use(step: str, text: Corpus, part: Part) -> manifest.TextUse:
    """The record of a step that read `text`, one part of a corpus."""
    return manifest.TextUse(
        step=step,
        part=part.value,
        source=text.source,
        files=[str(file) for file in text.files],
        sha256=text.sha256,
        documents=len(text.documents),
        bytes=text.nbytes,
    )


def record_text_use(folder: Path, use: manifest.TextUse) -> None:
    """Add a record to a slice's slice.json, once; nothing where `folder` is no finished slice."""
    if not (folder / manifest.FILE).is_file():
        return
    made = manifest.read(folder)
    if use not in made.texts:
        manifest.write(folder, made.model_copy(update={"texts": [*made.texts, use]}))
