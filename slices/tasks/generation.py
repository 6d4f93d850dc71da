"""Generation tasks, decoded greedily and scored exactly: math word problems, last words, code that runs."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from slices.progress import Progress, no_progress
from slices.runtime import Runtime, Sampling
from slices.tasks.item_scores import ItemScores
from slices.tasks.questions import Question, questions_sha256
from slices.tasks.sandbox import passes

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_MATH_SAMPLING = Sampling(max_tokens=160, temperature=0, stop=("\n\n", "Question:"))
_WORD_SAMPLING = Sampling(max_tokens=8, temperature=0)
_CODE_SAMPLING = Sampling(
    max_tokens=256, temperature=0, stop=("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint", "\n```")
)
_MIN_CONTEXT = 300  # characters before a last word
_FEW_SHOT = (
    ("A baker fills 6 trays with 12 rolls each and sells 50 rolls. How many rolls are left?",
     "The baker has 6 * 12 = 72 rolls. After selling 50, 72 - 50 = 22 are left. The answer is 22."),
    ("Tom reads 15 pages a day. How many pages does he read in two weeks?",
     "Two weeks have 14 days. He reads 15 * 14 = 210 pages. The answer is 210."),
    ("A rope of 90 metres is cut into 5 equal pieces, and 2 are used. How many metres are left?",
     "Each piece has 90 / 5 = 18 metres. 5 - 2 = 3 are left, so 3 * 18 = 54 metres. The answer is 54."),
)  # fmt: skip


def math_word_problems(
    runtime: Runtime, questions: Sequence[Question], progress: Progress = no_progress
) -> ItemScores:
    """Exact match of the last generated number, three-shot, as in GSM8K (Cobbe et al. 2021)."""
    shots = "".join(f"Question: {question}\nAnswer: {answer}\n\n" for question, answer in _FEW_SHOT)
    scores = np.zeros(len(questions))
    for index, question in enumerate(questions):
        completion = _complete(runtime, f"{shots}Question: {question.question}\nAnswer:", _MATH_SAMPLING)
        scores[index] = last_number_matches(completion, str(question.answer))
        progress("math word problems", index + 1, len(questions))
    return ItemScores("exact_match", scores, questions_sha256(questions))


def last_number_matches(completion: str, answer: str) -> bool:
    """Whether the last number in `completion` is `answer`."""
    numbers = _NUMBER.findall(completion)
    return bool(numbers) and _parse_number(numbers[-1]) == _parse_number(answer)


def predict_last_words(
    runtime: Runtime, passages: Sequence[str], progress: Progress = no_progress
) -> ItemScores:
    """Accuracy of the last word of each passage (after LAMBADA, Paperno et al. 2016)."""
    items = [item for passage in passages if (item := split_last_word(passage))]
    scores = np.zeros(len(items))
    for index, (context, word) in enumerate(items):
        words = re.findall(r"\w+", _complete(runtime, context, _WORD_SAMPLING))
        scores[index] = bool(words) and words[0].lower() == word.lower()
        progress("last words", index + 1, len(items))
    return ItemScores("cloze", scores, hashlib.sha256(repr(items).encode()).hexdigest())


def split_last_word(passage: str) -> tuple[str, str] | None:
    """The context and the last word that occurs in it before; None where there is no such word."""
    for match in reversed(list(re.finditer(r"(?<= )[^\W\d_]{4,}", passage))):
        context = passage[: match.start()].rstrip()
        if len(context) < _MIN_CONTEXT:
            return None
        if re.search(rf"\b{match[0]}\b", context):
            return context, match[0]
    return None


def code_generation(
    runtime: Runtime, questions: Sequence[Question], progress: Progress = no_progress
) -> ItemScores:
    """pass@1 of generated functions (after HumanEval, Chen et al. 2021), tested in a sandbox."""
    scores = np.zeros(len(questions))
    for index, question in enumerate(questions):
        prompt = code_prompt(question)
        completion = _complete(runtime, prompt, _CODE_SAMPLING)
        scores[index] = passes(f"{prompt}{completion}\n\n{unit_tests(question)}\n")
        progress("code generation", index + 1, len(questions))
    return ItemScores("code", scores, questions_sha256(questions))


def code_prompt(question: Question) -> str:
    """A function's head to continue (HumanEval), or the task and its first test in a docstring (MBPP)."""
    if question.test:
        return question.question
    tests = "\n".join(question.test_list[:1])
    return f'"""\n{question.question.strip()}\n{tests}\n"""\n'


def unit_tests(question: Question) -> str:
    """The code that raises unless the answer is right."""
    if question.test:
        return f"{question.test}\n\ncheck({question.entry_point})"
    return "\n".join(question.test_list)


def _complete(runtime: Runtime, prompt: str, sampling: Sampling) -> str:
    return "".join(piece.text for piece in runtime.generate(prompt, sampling))


def _parse_number(number: str) -> float:
    return float(number.replace(",", ""))
