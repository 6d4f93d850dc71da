"""The result of a model on a domain: likelihoods by document, task scores by item, for paired comparisons."""

from collections.abc import Sequence
from dataclasses import asdict
from time import perf_counter

import numpy as np
from pydantic import BaseModel, ConfigDict

from slices.measure.expected import Expected
from slices.measure.fidelity import Likeness, fidelity
from slices.measure.heldout import Heldout
from slices.measure.reading import Passage
from slices.progress import Progress, no_progress
from slices.report.config import EvalConfig
from slices.report.eval_task import EvalTask
from slices.runtime import Runtime
from slices.tasks.generation import code_generation, math_word_problems, predict_last_words
from slices.tasks.item_scores import ItemScores
from slices.tasks.multiple_choice import multiple_choice
from slices.tasks.questions import Question, sample_questions


class StoredScores(BaseModel):
    """`ItemScores` as they are stored in the resume cache."""

    model_config = ConfigDict(frozen=True)

    scores: list[float]
    data_sha256: str

    def load(self, task: str) -> ItemScores:
        """The scores as arrays."""
        return ItemScores(task, np.array(self.scores), self.data_sha256)


class DomainResult(BaseModel):
    """A model on a domain.

    `bits` and `bytes` by document; `seconds` of scoring the text; `likeness` to the baseline, where there is
    one; `scores` by task.
    """

    model_config = ConfigDict(frozen=True)

    bits: list[float]
    bytes: list[float]
    tokens: int
    seconds: float
    likeness: Likeness | None = None
    scores: dict[str, StoredScores] = {}


def measure_domain(
    name: str,
    runtime: Runtime,
    domain: str,
    text: Heldout,
    passages: Sequence[Passage],
    expected: Expected | None,
    questions: Sequence[Question],
    config: EvalConfig,
    progress: Progress = no_progress,
) -> DomainResult:
    """Everything that `config` asks of a loaded model on a domain.

    Args:
        passages: the windows in the model's tokens.
        expected: the baseline's distributions there; None measures no divergence.

    Raises:
        RunFailed: the model gives no finite probability; `name` is in the message.
    """
    started = perf_counter()
    found = fidelity(f"{name} on {domain}", runtime, text, passages, expected, progress)
    seconds = perf_counter() - started
    scores = _task_scores(runtime, domain, text, questions, config, progress)
    return DomainResult(
        bits=found.bits.tolist(),
        bytes=found.bytes.tolist(),
        tokens=found.tokens,
        seconds=seconds,
        likeness=found.likeness,
        scores={each.task: store_scores(each) for each in scores if len(each.scores)},
    )


def store_scores(scores: ItemScores) -> StoredScores:
    """Scores as they are stored."""
    return StoredScores(scores=scores.scores.tolist(), data_sha256=scores.data_sha256)


def likeness_json(likeness: Likeness) -> dict[str, object]:
    """The likeness to the baseline as the keys of the JSON report."""
    return {
        "kl": asdict(likeness.kl),
        "same_top1": asdict(likeness.same_top1),
        "lost_mass": likeness.lost_mass.value,
        "lost_mass_stderr": likeness.lost_mass.stderr,
        "perplexity_ratio": asdict(likeness.perplexity_ratio),
    }


def _task_scores(
    runtime: Runtime,
    domain: str,
    text: Heldout,
    questions: Sequence[Question],
    config: EvalConfig,
    progress: Progress,
) -> list[ItemScores]:
    scores: list[ItemScores] = []
    if EvalTask.MCQ in config.tasks and (
        sample := sample_questions(questions, domain, "multiple_choice", config.items)
    ):
        scores += multiple_choice(runtime, sample, config.context_length, progress).values()
    if EvalTask.GENERATE in config.tasks:
        passages = [window.text for window in text.windows][: 4 * config.items]
        scores.append(predict_last_words(runtime, passages, progress))
        numeric = [each for each in questions if str(each.answer).replace(",", "").lstrip("-").isdigit()]
        if sample := sample_questions(numeric, domain, "free_form", config.items):
            scores.append(math_word_problems(runtime, sample, progress))
    if EvalTask.CODE in config.tasks and (
        sample := sample_questions(questions, domain, "code", config.items)
    ):
        scores.append(code_generation(runtime, sample, progress))
    return scores
