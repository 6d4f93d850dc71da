"""What the models of an evaluation share: held-out text, questions, baseline, opener, resume cache."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from slices.errors import BadCheckpoint
from slices.measure.heldout import Heldout
from slices.measure.reference import Reference
from slices.measure.reference_cache import cached_reference
from slices.measure.token_map import TokenMap, count_rows, token_map
from slices.measure.tokenized import TokenWindow
from slices.progress import Progress, no_progress
from slices.report.config import EvalConfig
from slices.report.evaluated_model import EvaluatedModel
from slices.report.resume_cache import EvalCache
from slices.runtime import Runtime
from slices.tasks.questions import QUESTION_KINDS, Question, questions_sha256, sample_questions
from slices.versions import runtime_versions

Opener = Callable[[EvaluatedModel, EvalConfig], Runtime]


@dataclass
class EvalRun:
    """One run of `slices.report.evaluate.evaluate`; `heldout` by domain."""

    heldout: Mapping[str, Heldout]
    questions: Sequence[Question]
    config: EvalConfig
    baseline: EvaluatedModel | None
    opener: Opener
    progress: Progress = no_progress
    cache: EvalCache = field(default_factory=EvalCache)
    _fingerprints: dict[EvaluatedModel, str] = field(default_factory=dict)
    _open_baseline: Runtime | None = None

    def cache_key(self, model: EvaluatedModel, domain: str) -> list[object]:
        """What the result of a model on a domain depends on."""
        config = self.config
        questions = [each for each in self.questions if each.domain == domain]
        samples = [
            questions_sha256(sample_questions(questions, domain, kind, config.items))
            for kind in QUESTION_KINDS
        ]
        settings = [sorted(config.tasks), config.items, config.needle_lengths, config.seed]
        return [
            self._fingerprint(model),
            "" if self.baseline is None else self._fingerprint(self.baseline),
            model == self.baseline,
            domain,
            self.heldout[domain].sha256,
            [*settings, config.context_length],
            samples,
            runtime_versions(),
        ]

    def baseline_distributions(
        self, domain: str, windows: Sequence[TokenWindow], vocabulary: TokenMap | None
    ) -> Reference | None:
        """The baseline's distributions on `windows` of a model; None without a baseline.

        Args:
            vocabulary: which of the baseline's tokens the model's are; None where they agree.
        """
        if self.baseline is None:
            return None
        return cached_reference(
            name=f"{self.baseline.name} on {domain}",
            identity=self._fingerprint(self.baseline),
            open_runtime=self._load_baseline,
            text=self.heldout[domain],
            windows=windows,
            token_map=vocabulary,
            progress=self.progress,
        )

    def close_baseline(self) -> None:
        """Free the baseline, if it was loaded."""
        if self._open_baseline is not None:
            self._open_baseline.close()
            self._open_baseline = None

    def _load_baseline(self) -> Runtime:
        assert self.baseline is not None
        if self._open_baseline is None:
            self._open_baseline = self.opener(self.baseline, self.config)
        return self._open_baseline

    def _fingerprint(self, model: EvaluatedModel) -> str:
        """Computed once, since a GGUF is read whole."""
        if model not in self._fingerprints:
            self._fingerprints[model] = model.fingerprint()
        return self._fingerprints[model]


def map_vocabulary(model: EvaluatedModel, runtime: Runtime, baseline: EvaluatedModel) -> TokenMap | None:
    """Which of the baseline's tokens the model's are; None where they agree.

    Raises:
        BadCheckpoint, NotFound: they cannot be compared token by token; the message says why.
    """
    found = token_map(model.folder, baseline.folder)
    ids = found.ids
    width = next(iter(runtime.distributions((0, 0)))).shape[1]
    if width != len(ids):
        raise BadCheckpoint(f"{model.name} has {width:,} tokens, its tokenizer.json is for {len(ids):,}")
    shared = ids >= 0
    equal = bool((ids[shared] == np.flatnonzero(shared)).all())
    return None if len(ids) == count_rows(baseline.folder) and equal else found
