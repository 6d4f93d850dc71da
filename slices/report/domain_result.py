"""The result of a model on a domain: likelihoods by document, task scores by item, for paired comparisons."""

from collections.abc import Sequence
from dataclasses import asdict
from time import perf_counter

import numpy as np
from pydantic import BaseModel, ConfigDict

from slices.estimate import Estimate
from slices.measure.bits_per_byte import score_text
from slices.measure.divergence import Divergence, Quantiles, measure_divergence
from slices.measure.heldout import Heldout
from slices.measure.reference import Reference
from slices.measure.tokenized import TokenWindow
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


class StoredDivergence(BaseModel):
    """A `Divergence` as it is stored in the resume cache."""

    model_config = ConfigDict(frozen=True)

    kl: Estimate
    kl_first_piece: Estimate
    kl_quantiles: Quantiles
    kl_sampled_tokens: int
    same_top1: Estimate
    lost_mass: Estimate
    perplexity_ratio: Estimate

    def to_json(self) -> dict[str, object]:
        """The divergence from the baseline as the keys of the JSON report."""
        return {
            "kl": {"mean": self.kl.value, "stderr": self.kl.stderr, **asdict(self.kl_quantiles)},
            "kl_first_piece": {"mean": self.kl_first_piece.value, "stderr": self.kl_first_piece.stderr},
            "kl_sampled_tokens": self.kl_sampled_tokens,
            "same_top1": asdict(self.same_top1),
            "lost_mass": self.lost_mass.value,
            "lost_mass_stderr": self.lost_mass.stderr,
            "perplexity_ratio": asdict(self.perplexity_ratio),
        }


class DomainResult(BaseModel):
    """A model on a domain.

    `bits` and `bytes` by document; `seconds` of scoring the text; `divergence` from the baseline, where
    there is one; `scores` by task.
    """

    model_config = ConfigDict(frozen=True)

    bits: list[float]
    bytes: list[float]
    tokens: int
    seconds: float
    divergence: StoredDivergence | None = None
    scores: dict[str, StoredScores] = {}


def measure_domain(
    name: str,
    runtime: Runtime,
    domain: str,
    text: Heldout,
    windows: Sequence[TokenWindow],
    reference: Reference | None,
    questions: Sequence[Question],
    config: EvalConfig,
    progress: Progress = no_progress,
) -> DomainResult:
    """Everything that `config` asks of a loaded model on a domain.

    Args:
        windows: the text's, in the model's tokens.
        reference: the baseline's distributions on them; None measures no divergence.

    Raises:
        RunFailed: the model gives no finite probability; `name` is in the message.
    """
    started = perf_counter()
    label = f"{name} on {domain}"
    if reference is None:
        score, divergence = score_text(label, runtime, text, windows, progress), None
    else:
        found = measure_divergence(label, runtime, reference, progress)
        score, divergence = found.score, store_divergence(found)
    seconds = perf_counter() - started
    scores = _task_scores(runtime, domain, text, questions, config, progress)
    return DomainResult(
        bits=score.bits.tolist(),
        bytes=score.bytes.tolist(),
        tokens=score.tokens,
        seconds=seconds,
        divergence=divergence,
        scores={each.task: store_scores(each) for each in scores if len(each.scores)},
    )


def store_scores(scores: ItemScores) -> StoredScores:
    """Scores as they are stored."""
    return StoredScores(scores=scores.scores.tolist(), data_sha256=scores.data_sha256)


def store_divergence(found: Divergence) -> StoredDivergence:
    """A divergence as it is stored; the lost mass is 0 where both vocabularies are the same."""
    return StoredDivergence(
        kl=found.kl,
        kl_first_piece=found.kl_first_piece,
        kl_quantiles=found.kl_quantiles,
        kl_sampled_tokens=found.kl_sampled_tokens,
        same_top1=found.same_top1,
        lost_mass=found.lost_mass or Estimate(0.0, 0.0),
        perplexity_ratio=found.perplexity_ratio,
    )


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
