"""Multiple choice as in MMLU (Hendrycks et al. 2021): the most likely letter, or the most likely answer text.

By letter, the choices are in the prompt and the model continues with a letter. Small base models guess there,
so the answer texts are scored too, by log-likelihood per character, without the choices in the prompt.
"""

from collections.abc import Sequence

import numpy as np

from slices.progress import Progress, no_progress
from slices.runtime import Runtime
from slices.tasks.item_scores import ItemScores
from slices.tasks.loglikelihood import loglikelihoods
from slices.tasks.questions import LETTERS, Question, questions_sha256

LETTER, TEXT = "mcq", "mcq_text"


def multiple_choice(
    runtime: Runtime,
    questions: Sequence[Question],
    max_length: int | None = None,
    progress: Progress = no_progress,
) -> dict[str, ItemScores]:
    """Accuracy by item of `LETTER` and of `TEXT` scoring.

    Args:
        max_length: tokens that the model takes at once; longer prompts are truncated on the left.
    """
    by_letter, by_text = np.zeros(len(questions)), np.zeros(len(questions))
    for index, question in enumerate(questions):
        by_letter[index] = predict_letter(runtime, question, max_length) == question.answer
        by_text[index] = predict_text(runtime, question, max_length) == question.answer
        progress("multiple choice", index + 1, len(questions))
    data = questions_sha256(questions)
    return {LETTER: ItemScores(LETTER, by_letter, data), TEXT: ItemScores(TEXT, by_text, data)}


def predict_letter(runtime: Runtime, question: Question, max_length: int | None = None) -> int:
    """The index of the choice whose letter is most likely."""
    letters = [f" {LETTERS[index]}" for index in range(len(question.choices or ()))]
    found = loglikelihoods(runtime, letter_prompt(question), letters, max_length)
    return max(range(len(found)), key=lambda index: found[index].logprob)


def predict_text(runtime: Runtime, question: Question, max_length: int | None = None) -> int:
    """The index of the choice whose text is most likely per character."""
    choices = question.choices or ()
    prompt = f"{_passage(question)}Question: {question.question.strip()}\nAnswer:"
    found = loglikelihoods(runtime, prompt, [f" {choice}" for choice in choices], max_length)
    return max(range(len(found)), key=lambda index: found[index].logprob / len(choices[index]))


def letter_prompt(question: Question) -> str:
    """The prompt of MMLU's own evaluation, zero-shot."""
    subject = question.subject.replace("_", " ") or question.domain
    header = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
    choices = "".join(
        f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, question.choices or (), strict=False)
    )
    return f"{header}{_passage(question)}{question.question.strip()}\n{choices}Answer:"


def _passage(question: Question) -> str:
    return f"{question.context.strip()}\n\n" if question.context else ""
