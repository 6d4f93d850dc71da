"""Labelled queries from files: what a router is fitted on and measured with.

A line is an object with a text, `query` or `question`, and a `domain`; a domain of null says nothing and is
left out. Where it has `choices`, a list of possible answers, these too tell what words the domain uses. A
folder stands for all the `.jsonl` files in it and in its `questions/` and `routing/`; what is in its
`corpora/` is no query, but a hint as well.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from router.errors import BadTraining
from slices.text.corpus import read_documents

OOD = "ood"  # the label of what no expert should answer
_PLACES = ("*.jsonl", "questions/*.jsonl", "routing/*.jsonl")
_TEXTS = ("query", "question")
HINTS, PIECE = 6000, 300  # pieces of a domain's corpus, and characters of one
SHORT = 20  # characters; choices of fewer, such as "yes no maybe", are no domain's words


def read_queries(path: Path) -> list[tuple[str, str]]:
    """(text, domain) of every labelled line of a file, or of the files of a folder by name.

    Raises:
        BadTraining: nothing is there or can be read, or a line is not such an object; it is numbered.
    """
    return [(text, domain) for text, domain, _ in _lines(path)]


def read_answers(path: Path) -> dict[str, str]:
    """The choices of the same lines' questions, in one text, by question; short ones say nothing.

    Raises:
        BadTraining: as `read_queries`.
    """
    return {text: choices for text, _, choices in _lines(path) if len(choices) >= SHORT}


def joined(choices: Any) -> str:
    """A list of choices as one text; empty where it is none."""
    return " ".join(map(str, choices)) if isinstance(choices, list) else ""


def read_hints(
    path: Path, domains: Collection[str], each: int = HINTS, seed: int = 0
) -> list[tuple[str, str]]:
    """Pieces of the text of `domains` in a folder's `corpora/<domain>/calibration.jsonl`, (text, domain).

    Args:
        each: pieces a domain, drawn from all its documents, longer ones more often.

    Raises:
        SliceError: a file is damaged; its line is named.
    """
    found = []
    for name in sorted(domains):
        file = path / "corpora" / name / "calibration.jsonl"
        if file.is_file():
            found += [(text, name) for text in _pieces(list(read_documents(file)), each, seed)]
    return found


def _pieces(documents: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` pieces of `PIECE` characters."""
    draw = np.random.default_rng(seed)
    lengths = np.array([len(text) for text in documents], dtype=np.float64)
    found = []
    for at in draw.choice(len(documents), count, p=lengths / lengths.sum()).tolist():
        start = int(draw.integers(max(1, len(documents[at]) - PIECE)))
        found.append(documents[at][start : start + PIECE])
    return [text for text in found if text.strip()]


def _lines(path: Path) -> list[tuple[str, str, str]]:
    """(text, domain, choices) of every labelled line."""
    if not path.is_dir():
        return list(_read(path))
    files = sorted({file for place in _PLACES for file in path.glob(place)})
    if not files:
        raise BadTraining(f"{path} holds no .jsonl files, nor do its questions/ and routing/")
    return [line for file in files for line in _read(file)]


def _read(path: Path) -> Iterator[tuple[str, str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadTraining(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            said = _object(line, f"{path}, line {number}")
            if said.get("domain") is not None:
                text = _text(said, f"{path}, line {number}")
                yield text, str(said["domain"]), joined(said.get("choices"))


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadTraining(f"{where}: not JSON: {error}") from None
    if not isinstance(said, dict):
        raise BadTraining(f"{where}: expected an object with the texts `query` and `domain`")
    return said


def _text(said: dict[str, Any], where: str) -> str:
    found: Sequence[Any] = [said[key] for key in _TEXTS if key in said]
    if len(found) != 1 or not isinstance(found[0], str):
        raise BadTraining(f"{where}: expected a text as `query` or as `question`")
    return found[0]
