"""The request of a budget search, and the key that identifies its results."""

from dataclasses import asdict, dataclass, field
from typing import Any

from slices.checkpoint import Checkpoint, fingerprint
from slices.cut.request import SliceRequest
from slices.device import choose_device
from slices.heal.settings import HealConfig
from slices.measure.heldout import Heldout
from slices.search import candidates
from slices.text.corpus import Corpus
from slices.versions import versions


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """A search: what to cut, on which text, within how many bytes.

    Attributes:
        cut: the options of the cut; its layers are searched where they say `auto`.
        text: all of the domain's text; candidates are ranked on its selection part.
        budget: most bytes of the GGUF.
        vocab, ffn: fixed values of --vocab and --ffn; None searches them.
        healing: hyperparameters by which every cut is healed before it is measured; None heals none.
    """

    cut: SliceRequest
    text: Corpus
    budget: int
    vocab: str | None = None
    ffn: str | None = None
    healing: HealConfig | None = None
    space: candidates.SearchSpace = field(default_factory=lambda: candidates.SPACE)
    threads: int | None = None

    @property
    def heal_steps(self) -> int:
        """Optimizer steps of each candidate's healing; 0 for none."""
        return self.healing.steps if self.healing else 0


def healing_of(steps: int, seed: int) -> HealConfig | None:
    """The defaults of `mom heal --steps N --no-compile`; None for 0 steps."""
    return HealConfig(steps=steps, seed=seed, compiled=False) if steps else None


def cache_key(request: SearchRequest, checkpoint: Checkpoint, heldout: Heldout) -> dict[str, Any]:
    """Everything that determines the results of a search.

    The name, the domain and the corpus' paths are written into every GGUF, so they change its bytes.
    """
    cut = request.cut
    return {
        "parent": fingerprint(checkpoint),
        "corpus": request.text.sha256,
        "heldout": heldout.sha256,
        "budget": request.budget,
        "name": cut.slice_name,
        "domain": cut.domain,
        "files": [str(path.absolute()) for path in cut.corpus],
        "layers": cut.layers,
        "vocab": request.vocab,
        "ffn": request.ffn,
        "ffn_rank": str(cut.ffn_rank),
        "repair": cut.repair,
        "portable": cut.portable,
        "attention": str(cut.attention),
        "rope_theta": cut.rope_theta,
        "seed": cut.seed,
        "healing": _healing(request),
        "space": {**asdict(request.space), "min_bits_per_weight": candidates.MIN_BITS_PER_WEIGHT},
        "versions": versions(),
    }


def _healing(request: SearchRequest) -> dict[str, Any] | None:
    """The hyperparameters, and on what they are carried out."""
    if request.healing is None:
        return None
    device = choose_device("auto", request.healing.precision, request.threads)
    return {**request.healing.to_json(), "device": device.name, "compute": str(device.compute)}
