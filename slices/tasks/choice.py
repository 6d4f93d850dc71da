"""Multiple choice, as MMLU asks it (Hendrycks et al. 2021): the likeliest letter, or the likeliest answer.

By letter the choices are in the prompt, and the model says which. Small base models guess there, so the
answers' own texts are scored too, by log probability a character, without the choices in view.
"""

from collections.abc import Callable, Sequence

import numpy as np

from slices.runtime import Runtime
from slices.tasks.likelihood import likelihoods
from slices.tasks.outcome import Outcome
from slices.tasks.questions import LETTERS, Question, identity

LETTER, TEXT = "mcq", "mcq_text"
Progress = Callable[[str, int, int], None]  # the task, items done, items in all


def choose(
    runtime: Runtime, questions: Sequence[Question], most: int | None = None, progress: Progress | None = None
) -> dict[str, Outcome]:
    """Have `runtime` answer both ways; outcomes by `LETTER` and `TEXT`.

    Args:
        most: tokens that it reads at once; longer questions lose their beginning.
    """
    letters, texts = np.zeros(len(questions)), np.zeros(len(questions))
    for number, question in enumerate(questions):
        letters[number] = by_letter(runtime, question, most) == question.answer
        texts[number] = by_text(runtime, question, most) == question.answer
        if progress:
            progress("multiple choice", number + 1, len(questions))
    data = identity(questions)
    return {LETTER: Outcome(LETTER, letters, data), TEXT: Outcome(TEXT, texts, data)}


def by_letter(runtime: Runtime, question: Question, most: int | None = None) -> int:
    """The index of the choice whose letter is likeliest."""
    letters = [f" {LETTERS[index]}" for index in range(len(question.choices or ()))]
    found = likelihoods(runtime, letter_prompt(question), letters, most)
    return max(range(len(found)), key=lambda index: found[index].logprob)


def by_text(runtime: Runtime, question: Question, most: int | None = None) -> int:
    """The index of the choice whose text is likeliest a character."""
    choices = question.choices or ()
    prompt = f"{_given(question)}Question: {question.question.strip()}\nAnswer:"
    found = likelihoods(runtime, prompt, [f" {choice}" for choice in choices], most)
    return max(range(len(found)), key=lambda index: found[index].logprob / len(choices[index]))


def letter_prompt(question: Question) -> str:
    """The question as MMLU's own evaluation writes it."""
    subject = question.subject.replace("_", " ") or question.domain
    opening = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
    choices = "".join(
        f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, question.choices or (), strict=False)
    )
    return f"{opening}{_given(question)}{question.question.strip()}\n{choices}Answer:"


def _given(question: Question) -> str:
    return f"{question.context.strip()}\n\n" if question.context else ""
