"""Feedback on routing decisions from a JSONL file: corrected labels and ratings of logged queries.

A line has a `query`, or a `prompt` as in the access log, and either a `domain`, the correct one, or a
`rating` ("up" or "down", 1 or -1) of the `expert` that answered, or of its `domain`. Where a rating of -1
names both, `domain` is the correction. Lines with neither say nothing and are counted. Nothing is stored.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, BaseModel, Field, ValidationError

from router.errors import BadTraining
from router.routing.model import GENERAL
from router.training.dataset import OOD, LabelledQuery

SOURCE = "feedback"


@dataclass(frozen=True)
class RejectedAnswer:
    """A query whose answer was rated down: which domain's expert should not have it."""

    text: str
    domain: str


@dataclass(frozen=True)
class Feedback:
    """What a file says: `labelled` queries to learn from, `rejected` answers, and lines that say nothing."""

    labelled: tuple[LabelledQuery, ...]
    rejected: tuple[RejectedAnswer, ...]
    unlabelled: int


class _Line(BaseModel):
    query: str = Field(min_length=1, validation_alias=AliasChoices("query", "prompt"), strict=True)
    domain: str | None = Field(default=None, strict=True)
    expert: str | None = Field(default=None, strict=True)
    rating: Literal["up", "down", 1, -1] | None = None


def read_feedback(path: Path, domains: Mapping[str, str]) -> Feedback:
    """The feedback in a file. Of several labels of a text the last one counts; `ood` means `general`.

    Args:
        domains: the domain of every name that may stand as `domain` or `expert`.

    Raises:
        BadTraining: the file cannot be read, or a line is malformed; it is numbered.
    """
    labelled: dict[str, str] = {}
    rejected: list[RejectedAnswer] = []
    unlabelled = 0
    for line, where in _lines(path):
        label, rejected_domain = _verdict(line, domains, where)
        if label is not None:
            labelled[line.query] = label
        elif rejected_domain is not None:
            rejected.append(RejectedAnswer(line.query, rejected_domain))
        else:
            unlabelled += 1
    queries = tuple(LabelledQuery(text, domain, source=SOURCE) for text, domain in labelled.items())
    return Feedback(queries, tuple(rejected), unlabelled)


def _lines(path: Path) -> Iterator[tuple[_Line, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadTraining(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            parsed = _Line.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"][:1]) or "the line"
            raise BadTraining(f"{where}: {key}: {first['msg']}") from None
        if not parsed.query.strip():
            raise BadTraining(f"{where}: query: expected a text that is not blank")
        yield parsed, where


def _verdict(line: _Line, domains: Mapping[str, str], where: str) -> tuple[str | None, str | None]:
    """The label that a line gives, and the domain that it rejects; at most one of them."""
    domain, answered = (_domain(name, domains, where) for name in (line.domain, line.expert))
    if line.rating is None:
        return domain, None
    if domain is None and answered is None:
        raise BadTraining(f"{where}: expected the `expert` or the `domain` that the rating is of")
    if line.rating in ("up", 1):
        return domain or answered, None
    if domain is not None and answered is not None and domain != answered:
        return domain, None
    return None, answered or domain


def _domain(name: str | None, domains: Mapping[str, str], where: str) -> str | None:
    if name is None:
        return None
    if name == OOD:
        return GENERAL
    if name not in domains:
        raise BadTraining(f"{where}: no domain or expert is called {name!r}; there are {', '.join(domains)}")
    return domains[name]
