"""The search space: structures (which layers, vocabulary rows and neurons stay) and quantization types.

Pure: nothing is read or measured. Every search includes the whole parent, quantized harder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slices.architecture.constraints import BLOCKS

MIN_BITS_PER_WEIGHT = 2.5  # of any file: structures that would not fit even so are not cut
FilePlan = tuple[str, str | None, int]  # type, embedding type, bytes


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What is tried, beside the parent's own sizes.

    Attributes:
        vocab_sizes: rows of the vocabulary.
        layers_removed: how many layers greedy removal takes away.
        ffn_fractions: of the parent's FFN width.
        types, embedding_types: of quantization; None leaves the embeddings to the type.
    """

    vocab_sizes: tuple[int, ...] = (131_072, 65_536, 46_080, 32_768, 24_576)
    layers_removed: tuple[int, ...] = (1, 2)
    ffn_fractions: tuple[float, ...] = (0.75, 0.5)
    types: tuple[str, ...] = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
    embedding_types: tuple[str | None, ...] = (None, "Q4_K")


SPACE = SearchSpace()


@dataclass(frozen=True)
class Structure:
    """A cut as the options of `mom slice`: --layers, --vocab, --ffn."""

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


def vocab_choices(fixed: str | None, parent: int, space: SearchSpace) -> list[str]:
    """Values of --vocab to try: the fixed one, else all and the sizes below the parent's."""
    return [fixed] if fixed else ["all", *(str(rows) for rows in space.vocab_sizes if rows < parent)]


def layer_choices(spec: str, count: int, space: SearchSpace) -> list[str]:
    """Values of --layers to try: for `auto` all, and all but one or two; else the spec itself."""
    if spec != "auto":
        return [spec]
    return ["all", *(f"auto:{count - removed}" for removed in space.layers_removed if removed < count)]


def ffn_choices(fixed: str | None, parent: int, space: SearchSpace) -> list[str]:
    """Values of --ffn to try: the fixed one, else all and fractions of the parent's in whole blocks."""
    if fixed:
        return [fixed]
    block = next((block for block in BLOCKS if parent % block == 0), 1)
    widths = {int(parent * fraction) // block * block for fraction in space.ffn_fractions}
    return ["all", *(str(width) for width in sorted(widths, reverse=True) if 0 < width < parent)]


def may_fit(bf16_bytes: int, budget: int) -> bool:
    """Whether some type could bring a cut of that many bytes in bf16 under the budget."""
    return bf16_bytes * MIN_BITS_PER_WEIGHT / 16 <= budget


def largest_fitting(files: Sequence[FilePlan], budget: int) -> list[tuple[str, str | None]]:
    """Types and embedding types of the two largest files of a structure that fit the budget."""
    fitting = sorted((each for each in files if each[2] <= budget), key=lambda each: -each[2])
    return [(type, embedding_type) for type, embedding_type, _ in fitting[:2]]
