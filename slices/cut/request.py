"""What was asked of `mom slice`, before anything is read."""

from dataclasses import dataclass
from pathlib import Path

from slices.home import check_name, slices_home


@dataclass(frozen=True)
class Request:
    """What was asked for. `output` None means `$MOM_HOME/slices/<name>`; `name` None, the domain's."""

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
    ffn_rank: str = "scores"
    repair: bool = False
    portable: bool = False

    @property
    def slice_name(self) -> str:
        """The name the slice goes by."""
        return check_name(self.name or (self.output.name if self.output else self.domain))

    @property
    def target(self) -> Path:
        """The folder the slice goes to."""
        return self.output or slices_home() / self.slice_name
