"""Measured candidates: the Pareto frontier of bytes and bits per byte, and the best within a budget."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from slices.estimate import Estimate
from slices.search.candidates import Structure


@dataclass(frozen=True)
class Candidate:
    """A measured GGUF file.

    Attributes:
        bits_per_byte: on selection text; comparable across vocabularies.
        bits_over_parent: bits per byte minus the parent's, in its own tokens.
        kl: to the parent over the kept tokens, nats per token.
        lost_mass: probability that the parent gives to tokens that were cut.
        heal_steps: optimizer steps of the healing before quantization; 0 for none.
        note: why a candidate that was to be healed is not; else empty.
    """

    structure: Structure
    type: str
    embedding_type: str | None
    bytes: int
    bits_per_byte: Estimate
    bits_over_parent: Estimate
    kl: Estimate
    lost_mass: Estimate | None
    heal_steps: int = 0
    note: str = ""

    @property
    def label(self) -> str:
        """Structure, types and healing in words."""
        return file_label(self.structure, self.type, self.embedding_type) + healed_label(self.heal_steps)

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Candidate":
        """Back from JSON."""
        lost = stored["lost_mass"]
        names = ("bits_per_byte", "bits_over_parent", "kl")
        estimates = {name: Estimate(**stored[name]) for name in names}
        parts = {"structure": Structure(**stored["structure"]), "lost_mass": lost and Estimate(**lost)}
        return cls(**{**stored, **estimates, **parts})


def file_label(structure: Structure, type: str, embedding_type: str | None) -> str:
    """A structure and its types in words."""
    return f"{structure}: {type}" + (f", {embedding_type} embeddings" if embedding_type else "")


def healed_label(steps: int) -> str:
    """A healing in words, to follow a structure or file; empty for none."""
    return f", healed {steps} steps" if steps else ""


def frontier(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that no other of at most their bytes beats, smallest first."""
    best_so_far: list[Candidate] = []
    for each in sorted(candidates, key=lambda each: (each.bytes, each.bits_per_byte.value)):
        if not best_so_far or each.bits_per_byte.value < best_so_far[-1].bits_per_byte.value:
            best_so_far.append(each)
    return best_so_far


def best(candidates: Sequence[Candidate], budget: int) -> Candidate | None:
    """The fitting candidate of fewest bits per byte; the smaller among equals; None if none fits."""
    fitting = [each for each in candidates if each.bytes <= budget]
    return min(fitting, key=lambda each: (each.bits_per_byte.value, each.bytes), default=None)
