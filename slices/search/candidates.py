"""What a search tries: structures (which layers, rows and neurons stay) and types to quantize them to.

Pure: nothing is read or measured. One structure of every search is the whole parent, quantized harder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slices.architecture.constraints import BLOCKS

ROWS = (131_072, 65_536, 46_080, 32_768, 24_576)
DROPPED = (1, 2)  # layers, by greedy removal
WIDTHS = (0.75, 0.5)  # of the FFN
TYPES = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
TABLES = (None, "Q4_K")
LEAST_BITS = 2.5  # a weight, of any file: structures that would not fit even so are not cut


@dataclass(frozen=True)
class Structure:
    """A cut, in the words of `mom slice`: --layers, --vocab, --ffn."""

    layers: str
    vocab: str
    ffn: str

    @property
    def whole(self) -> bool:
        """Whether nothing is cut."""
        return (self.layers, self.vocab, self.ffn) == ("all", "all", "all")

    def __str__(self) -> str:
        parts = [f"layers {self.layers}", f"rows {self.vocab}", f"ffn {self.ffn}"]
        cut = [part for part in parts if not part.endswith(" all")]
        return ", ".join(cut) or "nothing cut"


def row_choices(wished: str | None, vocabulary: int) -> list[str]:
    """Values of --vocab to try: the one that was asked for, else all and the numbers below the parent's."""
    return [wished] if wished else ["all", *(str(rows) for rows in ROWS if rows < vocabulary)]


def layer_choices(spec: str, count: int) -> list[str]:
    """Values of --layers to try beside all: for `auto` with some removed; another SPEC stands alone."""
    if spec != "auto":
        return [spec]
    return ["all", *(f"auto:{count - dropped}" for dropped in DROPPED if dropped < count)]


def width_choices(wished: str | None, parent: int) -> list[str]:
    """Values of --ffn to try: the one asked for, else all and shares that fill the same blocks."""
    if wished:
        return [wished]
    step = next((block for block in BLOCKS if parent % block == 0), 1)
    widths = {int(parent * share) // step * step for share in WIDTHS}
    return ["all", *(str(width) for width in sorted(widths, reverse=True) if 0 < width < parent)]


def may_fit(bf16_bytes: int, budget: int) -> bool:
    """Whether some type could bring a cut of that many bytes in bf16 under the budget."""
    return bf16_bytes * LEAST_BITS / 16 <= budget


def worth_trying(sizes: Sequence[tuple[str, str | None, int]], budget: int) -> list[tuple[str, str | None]]:
    """Of the types, tables and sizes of a structure, the two largest that fit."""
    fitting = sorted((each for each in sizes if each[2] <= budget), key=lambda each: -each[2])
    return [(type, tables) for type, tables, _ in fitting[:2]]
