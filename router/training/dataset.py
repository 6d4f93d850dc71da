"""Labelled queries from JSONL files, for fitting and evaluating a router.

A line is an object with a text, `query` or `question`, and a `domain`; lines of a null domain are skipped.
The strings `form`, `lang`, `source` and `topic` and the boolean `hard` are optional. A list of answer
`choices` is training data for the domain too. A folder means all `.jsonl` files in it and in its `questions/`
and `routing/`; snippets of its `corpora/` augment the training data.
"""

import json
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from router.errors import BadTraining
from slices.text.corpus import read_documents

OOD = "ood"  # the label of out-of-domain queries, which no expert should answer
_PATTERNS = ("*.jsonl", "questions/*.jsonl", "routing/*.jsonl")
_TEXT_KEYS = ("query", "question")
SNIPPETS_PER_DOMAIN, SNIPPET_CHARS = 6000, 300
MIN_CHOICES_CHARS = 20  # shorter choices, such as "yes no maybe", do not tell the domain


@dataclass(frozen=True)
class LabelledQuery:
    """A query, its domain, and what is known of it.

    Attributes:
        form: how it is worded, such as `question`, `short` or `pasted`.
        language: its ISO 639-1 code.
        source: the data set that it is from.
        topic: the part of the domain's syllabus.
        hard: it has the words of an expert's domain but needs no expert.
    """

    text: str
    domain: str
    form: str | None = None
    language: str | None = None
    source: str | None = None
    topic: str | None = None
    hard: bool = False


def read_queries(path: Path) -> list[LabelledQuery]:
    """Every labelled line of a file, or of the files of a folder in order of name.

    `source` defaults to the file's stem.

    Raises:
        BadTraining: nothing can be read there, or a line is malformed; it is numbered.
    """
    return [query for query, _ in _read_lines(path)]


def read_choices(path: Path) -> dict[str, str]:
    """The answer choices of the same lines as one text, by question; short ones are skipped.

    Raises:
        BadTraining: as `read_queries`.
    """
    return {query.text: choices for query, choices in _read_lines(path) if len(choices) >= MIN_CHOICES_CHARS}


def normalize(text: str) -> str:
    """The text without case, punctuation and extra spaces: two texts are the same where these are equal."""
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).lower()).strip()


def join_choices(choices: Any) -> str:
    """A list of choices as one text; empty where it is no list."""
    return " ".join(map(str, choices)) if isinstance(choices, list) else ""


def read_corpus_snippets(
    path: Path, domains: Collection[str], count: int = SNIPPETS_PER_DOMAIN, seed: int = 0
) -> list[tuple[str, str]]:
    """Random snippets of `domains` from a folder's `corpora/<domain>/calibration.jsonl`, (text, domain).

    Args:
        count: snippets of each domain, from documents sampled in proportion to their length.

    Raises:
        SliceError: a file is damaged; its line is named.
    """
    snippets = []
    for name in sorted(domains):
        file = path / "corpora" / name / "calibration.jsonl"
        if file.is_file():
            texts = _sample_snippets(list(read_documents(file)), count, seed)
            snippets += [(text, name) for text in texts]
    return snippets


def _sample_snippets(documents: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` snippets of `SNIPPET_CHARS` characters, blank ones left out."""
    rng = np.random.default_rng(seed)
    lengths = np.array([len(text) for text in documents], dtype=np.float64)
    snippets = []
    for index in rng.choice(len(documents), count, p=lengths / lengths.sum()).tolist():
        start = int(rng.integers(max(1, len(documents[index]) - SNIPPET_CHARS)))
        snippets.append(documents[index][start : start + SNIPPET_CHARS])
    return [text for text in snippets if text.strip()]


def _read_lines(path: Path) -> list[tuple[LabelledQuery, str]]:
    """(query, choices) of every labelled line."""
    if not path.is_dir():
        return list(read_file(path))
    files = sorted({file for pattern in _PATTERNS for file in path.glob(pattern)})
    if not files:
        raise BadTraining(f"{path} has no .jsonl files, nor do its questions/ and routing/")
    return [line for file in files for line in read_file(file)]


def read_file(path: Path, domain: str | None = None) -> Iterator[tuple[LabelledQuery, str]]:
    """(query, choices) of every labelled line of one file.

    Args:
        domain: of the lines that name none.

    Raises:
        BadTraining: as `read_queries`.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadTraining(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path}, line {number}"
            record = {"domain": domain, **_parse(line, where)}
            if record["domain"] is not None:
                yield _query(record, path.stem, where), join_choices(record.get("choices"))


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadTraining(f"{where}: not JSON: {error}") from None
    if not isinstance(record, dict):
        raise BadTraining(f"{where}: expected an object with the strings `query` and `domain`")
    return record


def _query(record: dict[str, Any], stem: str, where: str) -> LabelledQuery:
    texts = [record[key] for key in _TEXT_KEYS if key in record]
    if len(texts) != 1 or not isinstance(texts[0], str):
        raise BadTraining(f"{where}: expected a string as `query` or as `question`")
    strings = {key: record.get(key) for key in ("domain", "form", "lang", "source", "topic")}
    for key, value in strings.items():
        if not isinstance(value, str | None):
            raise BadTraining(f"{where}: expected a string as `{key}`, found {value!r}")
    if not isinstance(hard := record.get("hard"), bool | None):
        raise BadTraining(f"{where}: expected true or false as `hard`, found {hard!r}")
    return LabelledQuery(
        text=texts[0],
        domain=record["domain"],
        form=strings["form"],
        language=strings["lang"],
        source=strings["source"] or stem,
        topic=strings["topic"],
        hard=bool(hard),
    )
