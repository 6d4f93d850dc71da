"""Questions by domain from JSONL files, and a sample of them that is the same on every machine.

`DIR/questions/*.jsonl` hold an object a line: "question", "choices" (null for free-form questions), "answer"
(the index of the right choice, else its text), "domain", "source"; "test" or "test_list" for code.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from slices.errors import BadConfig, NotFound

LETTERS = "ABCDEFGHIJ"
QuestionKind = Literal["multiple_choice", "free_form", "code"]
QUESTION_KINDS: tuple[QuestionKind, ...] = get_args(QuestionKind)
_REDUX_OK = (None, "ok")  # MMLU-Redux labels of questions without a known error


class Question(BaseModel):
    """One question. `answer` is an index into `choices` where there are any."""

    model_config = ConfigDict(frozen=True)

    question: str
    choices: tuple[str, ...] | None = None
    answer: int | str
    domain: str
    source: str = ""
    subject: str = ""
    context: str | None = None
    redux: str | None = None
    test: str = ""
    test_list: tuple[str, ...] = ()
    entry_point: str = ""

    @model_validator(mode="after")
    def _answerable(self) -> "Question":
        if not self.question.strip():
            raise ValueError("the question is empty")
        if self.choices is not None:
            if not 2 <= len(self.choices) <= len(LETTERS) or not all(map(str.strip, self.choices)):
                raise ValueError(f"expected 2 to {len(LETTERS)} choices with text")
            if not isinstance(self.answer, int) or not 0 <= self.answer < len(self.choices):
                raise ValueError(
                    f"expected an answer from 0 to {len(self.choices) - 1}, found {self.answer!r}"
                )
        return self

    @property
    def kind(self) -> QuestionKind:
        """Multiple choice, code, or else free-form text."""
        if self.choices is not None:
            return "multiple_choice"
        return "code" if self.test or self.test_list else "free_form"

    @property
    def digest(self) -> str:
        """sha256 of the question and its choices, in hexadecimal."""
        return hashlib.sha256(json.dumps([self.question, self.choices]).encode()).hexdigest()


def read_questions(data: Path) -> list[Question]:
    """Every question of `data/questions/*.jsonl` without a known error; duplicates are dropped.

    Raises:
        NotFound: there is no file of questions.
        BadConfig: a line is malformed; file and line are named.
    """
    files = sorted(data.glob("questions/*.jsonl"))
    if not files:
        raise NotFound(f"{data} holds no questions/*.jsonl")
    found = [question for file in files for question in _read(file) if question.redux in _REDUX_OK]
    return list({question.digest: question for question in found}.values())


def sample_questions(
    questions: Iterable[Question], domain: str, kind: QuestionKind, count: int
) -> list[Question]:
    """At most `count` questions of a domain and kind, those of the lowest digests: the same everywhere."""
    matching = [each for each in questions if each.domain == domain and each.kind == kind]
    return sorted(matching, key=lambda each: each.digest)[:count]


def questions_sha256(questions: Sequence[Question]) -> str:
    """sha256 of a sample of questions, in hexadecimal."""
    return hashlib.sha256("".join(each.digest for each in questions).encode()).hexdigest()


def _read(file: Path) -> Iterable[Question]:
    try:
        lines = file.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise BadConfig(f"{file}: not UTF-8 text: byte {error.start} is invalid") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _parse(file, number, line)


def _parse(file: Path, number: int, line: str) -> Question:
    try:
        return Question.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        message = f"{field}: {first['msg']}" if field else first["msg"]
        raise BadConfig(f"{file}, line {number}: {message}") from None
