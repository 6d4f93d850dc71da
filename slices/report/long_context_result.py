"""The results on long text: bits by document and position, and their differences to the baseline."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from pydantic import BaseModel, ConfigDict

from slices.estimate import Estimate, Values, ratio
from slices.measure.long_text import EDGES, LongText
from slices.measure.paired import Difference, corrected, paired_difference
from slices.report.domain_result import StoredScores

BINS = tuple(pairwise(EDGES))  # first token and one past the last, of the reference
Key = tuple[str, str, int]  # model, domain, index of the bin


class DomainPositions(BaseModel):
    """A model on the long documents of a domain: `bits` by document and bin, `seconds` of scoring them."""

    model_config = ConfigDict(frozen=True)

    bits: list[list[float]]
    tokens: int
    seconds: float


class LongContextResult(BaseModel):
    """A model on long text. `notes` say what could not be read, and why."""

    model_config = ConfigDict(frozen=True)

    domains: dict[str, DomainPositions]
    needles: dict[str, StoredScores] = {}
    notes: list[str] = []


@dataclass(frozen=True)
class LongContextReport:
    """Models on long text, by name.

    Attributes:
        reference: the model whose tokens the bins are counted in.
        longest: tokens of the longest window; 0 where some model's context holds none.
        baseline: the model that the others are compared to, if any.
        notes: what was shortened or is missing.
    """

    reference: str
    longest: int
    texts: Mapping[str, LongText]
    models: Mapping[str, LongContextResult]
    baseline: str | None
    notes: list[str]

    def bins(self, domain: str) -> range:
        """Indices of the bins that some document of the domain fills."""
        return range(max((len(parts) for parts in self.texts[domain].parts), default=0))

    def documents(self, name: str, domain: str, index: int) -> list[int]:
        """The documents of which a model read the bin."""
        bits = self.models[name].domains[domain].bits
        return [number for number, each in enumerate(bits) if len(each) > index]

    def bits_per_byte(self, name: str, domain: str, index: int) -> tuple[float, float | None] | None:
        """A model's bits per byte in a bin, and the standard error over documents, None for a single one.

        None where it read no document's.
        """
        documents = self.documents(name, domain, index)
        if not documents:
            return None
        bits, nbytes = self._bits(name, domain, index, documents), self._bytes(domain, index, documents)
        if len(documents) == 1:
            return float(bits[0] / nbytes[0]), None
        found: Estimate = ratio(bits, nbytes)
        return found.value, found.stderr

    def differences(self) -> dict[Key, Difference]:
        """Bits per byte minus the baseline's, paired by document; p-values corrected by Holm's method."""
        if self.baseline is None:
            return {}
        others = [name for name in self.models if name != self.baseline]
        found = {
            (name, domain, index): difference
            for name in others
            for domain in self.texts
            for index in self.bins(domain)
            if (difference := self._difference(name, self.baseline, domain, index)) is not None
        }
        return corrected(found)

    def _difference(self, name: str, baseline: str, domain: str, index: int) -> Difference | None:
        theirs = set(self.documents(baseline, domain, index))
        shared = [each for each in self.documents(name, domain, index) if each in theirs]
        if not shared:
            return None
        ours, base = (self._bits(each, domain, index, shared) for each in (name, baseline))
        return paired_difference(ours, base, self._bytes(domain, index, shared))

    def _bits(self, name: str, domain: str, index: int, documents: list[int]) -> Values:
        bits = self.models[name].domains[domain].bits
        return np.array([bits[number][index] for number in documents], np.float64)

    def _bytes(self, domain: str, index: int, documents: list[int]) -> Values:
        nbytes = self.texts[domain].nbytes
        return np.array([nbytes[number][index] for number in documents], np.float64)
