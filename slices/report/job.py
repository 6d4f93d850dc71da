"""What is the same for every model of a report: text, questions, reference, and what is known already."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from slices.errors import BadCheckpoint
from slices.measure.expected import Expected
from slices.measure.heldout import Heldout
from slices.measure.reading import Passage, in_ids
from slices.measure.teachers import expectations
from slices.measure.token_map import count_rows, token_map
from slices.progress import Progress
from slices.report.resume_cache import Memory
from slices.report.settings import Wish
from slices.report.subject import Subject
from slices.runtime import Runtime
from slices.tasks.questions import QUESTION_KINDS, Question, questions_sha256, sample_questions

Opener = Callable[[Subject, Wish], Runtime]


@dataclass
class Job:
    """One run of `slices.report.run.evaluate`."""

    held: Mapping[str, Heldout]
    questions: Sequence[Question]
    wish: Wish
    reference: Subject | None
    opener: Opener
    progress: Progress | None
    memory: Memory = field(default_factory=Memory)
    _identities: dict[Subject, str] = field(default_factory=dict)
    _loaded: Runtime | None = None

    def key(self, subject: Subject, domain: str) -> list[object]:
        """What a cell depends on."""
        wish, asked = self.wish, [each for each in self.questions if each.domain == domain]
        reference = "" if self.reference is None else self._identity(self.reference)
        settings = [sorted(wish.tasks), wish.items, wish.lengths, wish.seed, wish.context]
        kinds = [
            questions_sha256(sample_questions(asked, domain, kind, wish.items)) for kind in QUESTION_KINDS
        ]
        text = self.held[domain].sha256
        return [self._identity(subject), reference, subject == self.reference, domain, text, settings, kinds]

    def expected(
        self, domain: str, passages: Sequence[Passage], ids: NDArray[np.int64] | None
    ) -> Expected | None:
        """What the reference expects at `passages`, which are in a model's ids; None without a reference."""
        if self.reference is None:
            return None
        label = f"{self.reference.name} on {domain}"
        theirs = passages if ids is None else in_ids(passages, ids)
        known = self._identity(self.reference)
        return expectations(label, known, self._open_reference, theirs, ids, self.progress)

    def close_reference(self) -> None:
        """Free the reference, if it had to be loaded."""
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None

    def _open_reference(self) -> Runtime:
        assert self.reference is not None
        if self._loaded is None:
            self._loaded = self.opener(self.reference, self.wish)
        return self._loaded

    def _identity(self, subject: Subject) -> str:
        """Read once, since a GGUF is read whole."""
        if subject not in self._identities:
            self._identities[subject] = subject.identity()
        return self._identities[subject]


def columns(subject: Subject, runtime: Runtime, reference: Subject) -> NDArray[np.int64] | None:
    """The reference's id of each of the subject's, shape (vocabulary,); None where they are the same.

    Raises:
        BadCheckpoint, NotFound: they cannot be compared token by token; says why.
    """
    ids = token_map(subject.folder, reference.folder)
    width = next(iter(runtime.distributions((0, 0)))).shape[1]
    if width != len(ids):
        raise BadCheckpoint(f"{subject.name} has {width:,} tokens, its tokenizer.json is for {len(ids):,}")
    known = ids >= 0
    same = len(ids) == count_rows(reference.folder) and bool((ids[known] == np.flatnonzero(known)).all())
    return None if same else ids
