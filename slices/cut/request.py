"""The options of a cut, as `mom slice` takes them, before anything is read."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from slices.architecture.attention import Attention, RopeTheta
from slices.home import check_name, slices_home


class FfnRank(StrEnum):
    """How FFN neurons are ranked where a cut keeps part of them."""

    SCORES = "scores"  # by their scores on the domain's text
    RANDOM = "random"  # at random: the baseline for the scores


@dataclass(frozen=True, kw_only=True)
class SliceRequest:
    """The options of a cut. `output` None means `$MOM_HOME/slices/<name>`; `name` None, the domain's.

    `rope_theta` None means local where the family allows it.
    """

    domain: str
    layers: str
    model: str
    vocab: str = "all"
    corpus: tuple[Path, ...] = ()
    output: Path | None = None
    name: str | None = None
    seed: int = 0
    force: bool = False
    ffn: str = "all"
    ffn_rank: FfnRank = FfnRank.SCORES
    repair: bool = False
    portable: bool = False
    attention: Attention = Attention.KEEP
    rope_theta: RopeTheta | None = None

    @property
    def slice_name(self) -> str:
        """The slice's name."""
        return check_name(self.name or (self.output.name if self.output else self.domain))

    @property
    def target(self) -> Path:
        """The folder of the slice."""
        return self.output or slices_home() / self.slice_name
