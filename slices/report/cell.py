"""A model on a domain: text, choices, writing and code, with everything that pairing needs."""

from collections.abc import Sequence
from dataclasses import asdict

from pydantic import BaseModel, ConfigDict

from slices.measure.expected import Expected
from slices.measure.fidelity import Likeness, fidelity
from slices.measure.heldout import Heldout
from slices.measure.reading import Passage
from slices.progress import Progress, no_progress
from slices.report.settings import Wish
from slices.runtime import Runtime
from slices.tasks.generation import code_generation, math_word_problems, predict_last_words
from slices.tasks.item_scores import ItemScores
from slices.tasks.multiple_choice import multiple_choice
from slices.tasks.questions import Question, sample_questions


class Scores(BaseModel):
    """An `ItemScores` on disk."""

    model_config = ConfigDict(frozen=True)

    scores: list[float]
    data: str

    def outcome(self, task: str) -> ItemScores:
        """The same as arrays."""
        import numpy as np

        return ItemScores(task, np.array(self.scores), self.data)


class Cell(BaseModel):
    """`bits` and `bytes` by document; `seconds` that the text took; `likeness` to the reference, if any."""

    model_config = ConfigDict(frozen=True)

    bits: list[float]
    bytes: list[float]
    tokens: int
    seconds: float
    likeness: Likeness | None = None
    outcomes: dict[str, Scores] = {}


def measure_cell(
    name: str,
    runtime: Runtime,
    domain: str,
    text: Heldout,
    passages: Sequence[Passage],
    expected: Expected | None,
    questions: Sequence[Question],
    wish: Wish,
    progress: Progress | None = None,
) -> Cell:
    """Everything that `wish` asks of a loaded model on a domain.

    Args:
        passages, expected: the windows as it reads them, and what the reference expects there.

    Raises:
        RunFailed: the model gives no finite probability; `name` is in the message.
    """
    from time import perf_counter

    started = perf_counter()
    found = fidelity(f"{name} on {domain}", runtime, text, passages, expected, progress)
    seconds = perf_counter() - started
    outcomes = _outcomes(runtime, domain, text, questions, wish, progress)
    return Cell(
        bits=found.bits.tolist(),
        bytes=found.bytes.tolist(),
        tokens=found.tokens,
        seconds=seconds,
        likeness=found.likeness,
        outcomes={each.task: kept(each) for each in outcomes if len(each.scores)},
    )


def kept(outcome: ItemScores) -> Scores:
    """An outcome as it is stored."""
    return Scores(scores=outcome.scores.tolist(), data=outcome.data_sha256)


def told(likeness: Likeness) -> dict[str, object]:
    """Likeness as the report's JSON has it."""
    return {
        "kl": asdict(likeness.kl),
        "same_top1": asdict(likeness.same_top1),
        "lost_mass": likeness.lost_mass.value,
        "lost_mass_stderr": likeness.lost_mass.stderr,
        "perplexity_ratio": asdict(likeness.perplexity_ratio),
    }


def _outcomes(
    runtime: Runtime,
    domain: str,
    text: Heldout,
    questions: Sequence[Question],
    wish: Wish,
    progress: Progress | None,
) -> list[ItemScores]:
    found: list[ItemScores] = []
    if "mcq" in wish.tasks and (asked := sample_questions(questions, domain, "multiple_choice", wish.items)):
        found += multiple_choice(runtime, asked, wish.context, progress or no_progress).values()
    if "generate" in wish.tasks:
        numbers = [each for each in questions if str(each.answer).replace(",", "").lstrip("-").isdigit()]
        found.append(
            predict_last_words(
                runtime, [window.text for window in text.windows][: 4 * wish.items], progress or no_progress
            )
        )
        if asked := sample_questions(numbers, domain, "free_form", wish.items):
            found.append(math_word_problems(runtime, asked, progress or no_progress))
    if "code" in wish.tasks and (asked := sample_questions(questions, domain, "code", wish.items)):
        found.append(code_generation(runtime, asked, progress or no_progress))
    return found
