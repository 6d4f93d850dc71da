"""The story of a report: every model on every domain, against a reference that is run once.

All forms go through `Runtime`, torch and llama.cpp alike, on the same windows. A model is loaded once for all
its domains; what it has finished is kept, so that an interrupted run goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from slices.errors import BadCheckpoint, BadConfig, NotFound
from slices.measure.heldout import Heldout, cut_all
from slices.measure.reading import read_windows
from slices.probes.run import run_probes
from slices.progress import Progress, no_progress
from slices.report.cell import Cell, Scores, kept, measure_cell
from slices.report.job import Job, Opener, columns
from slices.report.settings import Wish
from slices.report.subject import Subject
from slices.runtime import Runtime, Sampling
from slices.tasks.questions import Question

_SPEED_TOKENS = 32


class Whole(BaseModel):
    """What a model does whatever the domain. `notes` say what could not be measured, and why."""

    tokens_per_second: float
    probes: dict[str, Scores] = {}
    notes: list[str] = []


@dataclass(frozen=True)
class Row:
    """One model: its cells by domain."""

    subject: Subject
    bytes: int
    whole: Whole
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Report:
    """All that one run measured."""

    rows: dict[str, Row]
    texts: dict[str, Heldout]
    wish: Wish
    against: str | None


def evaluate(
    measured: Sequence[Subject],
    texts: Mapping[str, Sequence[str]],
    wish: Wish,
    against: Subject | None = None,
    questions: Sequence[Question] = (),
    progress: Progress | None = None,
    opener: Opener | None = None,
) -> Report:
    """Measure every subject on every domain.

    Args:
        texts: held-out documents by domain.
        against: the reference that differences are taken to; it gets the first row.
        questions: those of all domains, of which samples are asked.
        opener: how to load a subject, for tests.

    Raises:
        BadConfig: two subjects share a name, or a domain has fewer than two documents.
        NotFound, BadCheckpoint, MissingExtra, RunFailed: a subject cannot be run.
    """
    order = [*([against] if against else []), *(each for each in measured if each != against)]
    names = [subject.name for subject in order]
    if len(set(names)) < len(names):
        raise BadConfig(f"two of the slices to measure share a name: {', '.join(sorted(names))}")
    held = cut_all(texts, wish.limit, wish.window, wish.stride)
    job = Job(held, questions, wish, against, opener or _open, progress)
    rows = {subject.name: _row(subject, job) for subject in order}
    job.memory.forget()
    return Report(rows, held, wish, against.name if against else None)


def _row(subject: Subject, job: Job) -> Row:
    """A model's row, from what is kept and what is measured now."""
    keys = {domain: job.key(subject, domain) for domain in job.held}
    whole_key = [*next(iter(keys.values())), "whole"]
    cells = {domain: job.memory.recall(Cell, key) for domain, key in keys.items()}
    whole = job.memory.recall(Whole, whole_key)
    found = {domain: cell for domain, cell in cells.items() if cell}
    if whole is None or len(found) < len(keys):
        runtime = job.opener(subject, job.wish)
        try:
            ids, notes = _compared(subject, runtime, job)
            for domain in (each for each in keys if each not in found):
                found[domain] = _cell(subject, runtime, domain, ids, bool(notes), job)
                job.memory.keep(found[domain], keys[domain])
            if whole is None:
                whole = _whole(runtime, notes, job)
                job.memory.keep(whole, whole_key)
        finally:
            runtime.close()
            job.close_reference()
    return Row(subject, subject.nbytes, whole, {domain: found[domain] for domain in keys})


def _compared(subject: Subject, runtime: Runtime, job: Job) -> tuple[NDArray[np.int64] | None, list[str]]:
    """The reference's columns of a model, or a note on why they cannot be compared token by token."""
    if job.reference is None or job.reference == subject:
        return None, []
    try:
        return columns(subject, runtime, job.reference), []
    except (BadCheckpoint, NotFound) as error:
        return None, [f"no KL to {job.reference.name}, whose tokens are others: {error}"]


def _cell(
    subject: Subject, runtime: Runtime, domain: str, ids: NDArray[np.int64] | None, apart: bool, job: Job
) -> Cell:
    text = job.held[domain]
    passages = read_windows(f"{subject.name} on {domain}", runtime, text)
    expected = None if apart or subject == job.reference else job.expected(domain, passages, ids)
    return measure_cell(
        subject.name, runtime, domain, text, passages, expected, job.questions, job.wish, job.progress
    )


def _whole(runtime: Runtime, notes: list[str], job: Job) -> Whole:
    texts, wish = [window.text for text in job.held.values() for window in text.windows], job.wish
    probes: dict[str, Scores] = {}
    if "probes" in wish.tasks:
        found = run_probes(runtime, texts, wish.items, wish.lengths, wish.seed, job.progress or no_progress)
        probes = {name: kept(outcome) for name, outcome in found.items()}
    return Whole(tokens_per_second=_writing_speed(runtime, texts), probes=probes, notes=notes)


def _writing_speed(runtime: Runtime, prompts: Sequence[str]) -> float:
    """Tokens a second after the first, over as many of the first four prompts as 32 tokens take."""
    tokens, seconds = 0, 0.0
    for prompt in prompts[:4]:
        started = None
        for piece in runtime.generate(prompt[:200], Sampling(max_tokens=_SPEED_TOKENS, temperature=0)):
            now = perf_counter()
            if started is not None:
                tokens, seconds = tokens + piece.tokens, seconds + now - started
            started = now
        if tokens >= _SPEED_TOKENS // 2:
            break
    return tokens / seconds if tokens and seconds else 0.0


def _open(subject: Subject, wish: Wish) -> Runtime:
    return subject.open(wish.threads, wish.context)
