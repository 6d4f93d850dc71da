"""Answers that are written, greedily, and right or wrong: numbers, last words of passages, code that runs."""

import hashlib
import re
from collections.abc import Callable, Sequence

import numpy as np

from slices.runtime import Runtime, Sampling
from slices.tasks.outcome import Outcome
from slices.tasks.questions import Question, identity
from slices.tasks.sandbox import passes

Progress = Callable[[str, int, int], None]  # the task, items done, items in all
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_SOLVING = Sampling(max_tokens=160, temperature=0, stop=("\n\n", "Question:"))
_WORD = Sampling(max_tokens=8, temperature=0)
_CODE = Sampling(
    max_tokens=256, temperature=0, stop=("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint", "\n```")
)
_PASSAGE = 300  # characters before a last word, at least
_WORKED = (
    ("A baker fills 6 trays with 12 rolls each and sells 50 rolls. How many rolls are left?",
     "The baker has 6 * 12 = 72 rolls. After selling 50, 72 - 50 = 22 are left. The answer is 22."),
    ("Tom reads 15 pages a day. How many pages does he read in two weeks?",
     "Two weeks have 14 days. He reads 15 * 14 = 210 pages. The answer is 210."),
    ("A rope of 90 metres is cut into 5 equal pieces, and 2 are used. How many metres are left?",
     "Each piece has 90 / 5 = 18 metres. 5 - 2 = 3 are left, so 3 * 18 = 54 metres. The answer is 54."),
)  # fmt: skip


def solve(runtime: Runtime, questions: Sequence[Question], progress: Progress | None = None) -> Outcome:
    """Word problems whose answer is a number, after three worked ones of our own: the last number counts."""
    shots = "".join(f"Question: {asked}\nAnswer: {told}\n\n" for asked, told in _WORKED)
    scores = np.zeros(len(questions))
    for number, question in enumerate(questions):
        told = _written(runtime, f"{shots}Question: {question.question}\nAnswer:", _SOLVING)
        scores[number] = same_number(told, str(question.answer))
        _tell(progress, "arithmetic", number, len(questions))
    return Outcome("exact_match", scores, identity(questions))


def same_number(told: str, answer: str) -> bool:
    """Whether the last number in `told` is `answer`."""
    found = _NUMBER.findall(told)
    return bool(found) and _value(found[-1]) == _value(answer)


def finish(runtime: Runtime, passages: Sequence[str], progress: Progress | None = None) -> Outcome:
    """The last word of each passage, from what comes before it (after LAMBADA, Paperno et al. 2016)."""
    items = [item for passage in passages if (item := last_word(passage))]
    scores = np.zeros(len(items))
    for number, (before, word) in enumerate(items):
        told = re.findall(r"\w+", _written(runtime, before, _WORD))
        scores[number] = bool(told) and told[0].lower() == word.lower()
        _tell(progress, "last words", number, len(items))
    return Outcome("cloze", scores, hashlib.sha256(repr(items).encode()).hexdigest())


def last_word(passage: str) -> tuple[str, str] | None:
    """A passage without its last word that it has used before, and that word; None where there is none."""
    for found in reversed(list(re.finditer(r"(?<= )[^\W\d_]{4,}", passage))):
        before = passage[: found.start()].rstrip()
        if len(before) < _PASSAGE:
            return None
        if re.search(rf"\b{found[0]}\b", before):
            return before, found[0]
    return None


def program(runtime: Runtime, questions: Sequence[Question], progress: Progress | None = None) -> Outcome:
    """Functions to write, run against their tests in a child process with limits."""
    scores = np.zeros(len(questions))
    for number, question in enumerate(questions):
        prompt = code_prompt(question)
        scores[number] = passes(f"{prompt}{_written(runtime, prompt, _CODE)}\n\n{checks(question)}\n")
        _tell(progress, "code", number, len(questions))
    return Outcome("code", scores, identity(questions))


def code_prompt(question: Question) -> str:
    """A function's head to go on from, or a task and its tests in words."""
    if question.test:
        return question.question
    lines = "\n".join(question.test_list[:1])
    return f'"""\n{question.question.strip()}\n{lines}\n"""\n'


def checks(question: Question) -> str:
    """The code that fails unless the answer is right."""
    if question.test:
        return f"{question.test}\n\ncheck({question.entry_point})"
    return "\n".join(question.test_list)


def _written(runtime: Runtime, prompt: str, sampling: Sampling) -> str:
    return "".join(piece.text for piece in runtime.generate(prompt, sampling))


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _tell(progress: Progress | None, task: str, number: int, count: int) -> None:
    if progress:
        progress(task, number + 1, count)
