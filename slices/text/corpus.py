"""A domain's text: documents from files, split into calibration and held-out by their content."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slices.errors import BadConfig, NotFound

_SUFFIXES = (".txt", ".md", ".jsonl")
_PASSAGE = 4000  # characters
_HELDOUT_IN = 10  # one document in ten


@dataclass(frozen=True)
class Corpus:
    """Documents of one domain. `source` says who wrote them."""

    source: Literal["files", "parent"]
    documents: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Identity of the text, in order."""
        digest = hashlib.sha256()
        for document in self.documents:
            data = document.encode()
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()

    @property
    def nbytes(self) -> int:
        """UTF-8 bytes of all documents."""
        return sum(len(document.encode()) for document in self.documents)

    def calibration(self) -> "Corpus":
        """The nine documents in ten that choices may look at; of a tiny corpus, all."""
        return Corpus(self.source, tuple(d for d in self.documents if not is_heldout(d)) or self.documents)

    def heldout(self) -> "Corpus":
        """The one in ten that only measures."""
        return Corpus(self.source, tuple(d for d in self.documents if is_heldout(d)))


def is_heldout(document: str) -> bool:
    """Whether a document is kept apart for measuring; decided by its content, so it never changes sides."""
    return int(hashlib.sha1(document.encode(), usedforsecurity=False).hexdigest(), 16) % _HELDOUT_IN == 0


def read_corpus(paths: Sequence[Path]) -> Corpus:
    """Documents of files and folders: a .jsonl line with "text" is one; .txt and .md files are cut at
    blank lines into documents of about 4,000 characters, so that a part of a long file can be held out.

    Raises:
        NotFound: a path is missing, or nothing in it is text.
        BadConfig: a file is not UTF-8, or a line is not as expected; file and line are named.
    """
    documents = [text for path in paths for file in _files(path) for text in read_documents(file)]
    documents = [text for text in documents if text.strip()]
    if not documents:
        raise NotFound(f"no text in {', '.join(map(str, paths))}: every document is empty")
    return Corpus("files", tuple(documents))


def read_documents(file: Path) -> Iterable[str]:
    """The documents of one file."""
    try:
        content = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadConfig(f"{file}: not UTF-8 text: byte {error.start} is invalid") from None
    if file.suffix != ".jsonl":
        return _passages(content)
    # Not splitlines(): a JSON string may hold U+2028, which splitlines() takes for a line's end.
    return [_line(file, number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]


def _passages(content: str) -> list[str]:
    """Runs of paragraphs of at least `_PASSAGE` characters; nothing is lost but the blank lines between."""
    passages, filled = [[""]], 0
    for paragraph in content.split("\n\n"):
        if filled >= _PASSAGE:
            passages.append([])
            filled = 0
        passages[-1].append(paragraph)
        filled += len(paragraph)
    return ["\n\n".join(passage).removeprefix("\n\n") for passage in passages]


def _line(file: Path, number: int, line: str) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadConfig(f"{file}, line {number}: not valid JSON: {error}") from None
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise BadConfig(f'{file}, line {number}: expected an object with a string under "text"')
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadConfig(f'{file}, line {number}: "text" holds a lone surrogate, which is not text') from None
    return text


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise NotFound(f"the corpus {path} does not exist")
    found = sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
    if not found:
        raise NotFound(f"the corpus {path} holds no .txt, .md or .jsonl file")
    return found
