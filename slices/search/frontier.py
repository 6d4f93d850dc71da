"""Which measured files are worth having: the frontier of bytes against bits, the best in a budget."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from slices.estimate import Estimate
from slices.search.candidates import Structure


@dataclass(frozen=True)
class Tried:
    """A measured file. `kl` (nats a token) is to the parent on the kept tokens, `lost` what it gives others.

    Bits per byte compare across vocabularies; `more` is what they exceed the parent's by, in its own tokens.
    """

    structure: Structure
    type: str
    tables: str | None
    bytes: int
    bits_per_byte: Estimate
    more: Estimate
    kl: Estimate
    lost: Estimate | None

    @property
    def label(self) -> str:
        """As people say it."""
        tables = f", tables {self.tables}" if self.tables else ""
        return f"{self.structure}: {self.type}{tables}"

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Tried":
        """Back from JSON."""
        lost = stored["lost"]
        estimates = {name: Estimate(**stored[name]) for name in ("bits_per_byte", "more", "kl")}
        parts = {"structure": Structure(**stored["structure"]), "lost": lost and Estimate(**lost)}
        return cls(**{**stored, **estimates, **parts})


def frontier(tried: Sequence[Tried]) -> list[Tried]:
    """Those that no other of at most their bytes beats, smallest first."""
    found: list[Tried] = []
    for each in sorted(tried, key=lambda each: (each.bytes, each.bits_per_byte.value)):
        if not found or each.bits_per_byte.value < found[-1].bits_per_byte.value:
            found.append(each)
    return found


def best(tried: Sequence[Tried], budget: int) -> Tried | None:
    """The one of fewest bits per byte that fits; of equal ones the smaller."""
    fitting = [each for each in tried if each.bytes <= budget]
    return min(fitting, key=lambda each: (each.bits_per_byte.value, each.bytes), default=None)
