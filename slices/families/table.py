"""The description of a model family: rules that map every tensor name to a part and named axes.

A cut follows from the axes alone: `vocab` axes lose rows, `ffn` axes lose neurons, `ple_layers` axes lose
the blocks of removed layers. No family is described here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Part = Literal["decoder", "per_layer_embedding", "embedding"]
LayerType = Literal["sliding_attention", "full_attention"]
WINDOW_FULL_ATTENTION = "window_full_attention"  # our key of config.json: true limits them to the window
SLIDING: LayerType = "sliding_attention"
FULL: LayerType = "full_attention"


@dataclass(frozen=True)
class Layer:
    """One decoder layer as the config describes it. `donor` is the layer whose K/V a shared layer reads.

    `windowed`: a full-attention layer that is limited to the sliding window.
    """

    index: int
    type: LayerType
    head_dim: int
    heads: int
    kv_heads: int
    ffn: int
    donor: int | None = None
    has_value: bool = True  # false where the keys serve as values (`attention_k_eq_v`)
    windowed: bool = False

    @property
    def shared(self) -> bool:
        """Whether it has no K/V of its own."""
        return self.donor is not None


@dataclass(frozen=True)
class Rule:
    """One kind of tensor: its name (`{}` is the layer), its part and its axes, by name.

    `when` selects the layers that execute it; `dead_when` those for which it may be stored without being
    executed, so that a cut drops it.
    """

    name: str
    axes: tuple[str, ...]
    part: Part = "decoder"
    when: Callable[[Layer], bool] = lambda layer: True
    dead_when: Callable[[Layer], bool] = lambda layer: False


@dataclass(frozen=True)
class ModelDims:
    """Sizes that hold for the whole model, in the config's own units."""

    hidden: int
    vocab: int
    ple_vocab: int = 0
    ple: int = 0
    experts: int = 0
    expert_ffn: int = 0
    sliding_window: int = 0


@dataclass(frozen=True)
class Family:
    """A model family: its model types, tensor names and config readers."""

    name: str
    model_types: Mapping[str, str]  # any model_type of the family -> that of its text-only checkpoints
    architectures: Mapping[str, str]  # model_type of a text-only checkpoint -> its class in transformers
    defaults: Mapping[str, Mapping[str, Any]]  # such a model_type -> what unstated keys mean to transformers
    prefixes: tuple[str, ...]  # of text tensors, longest first
    towers: tuple[str, ...]  # prefixes of what is not text, dropped
    tied: frozenset[str]  # names that only repeat the embedding
    read_dims: Callable[[Mapping[str, Any]], ModelDims]
    read_layers: Callable[[Mapping[str, Any]], tuple[Layer, ...]]
    read_rules: Callable[[Mapping[str, Any]], tuple[Rule, ...]]
    forced_full_types: Mapping[str, str] = field(default_factory=dict)
    """model_types whose last layer transformers forces to full attention -> ours that leaves it as it is"""
    slice_types: Mapping[str, str] = field(default_factory=dict)
    """stock model_types -> ours, which say what stock ones cannot"""
    same_heads: bool = False  # full-attention layers differ from sliding ones in mask and rotary theta alone

    def modality_of(self, name: str) -> str:
        """The module of a tensor outside the text model, for messages."""
        tower = next((prefix for prefix in self.towers if name.startswith(prefix)), name)
        return tower.removesuffix(".weight").rstrip(".").rpartition(".")[2]


def axis_sizes(dims: ModelDims, layer: Layer | None, layers: int) -> dict[str, int]:
    """The size of every named axis, for one layer or for the whole-model tensors."""
    sizes = {
        "hidden": dims.hidden,
        "vocab": dims.vocab,
        "ple_vocab": dims.ple_vocab,
        "ple": dims.ple,
        "ple_layers": layers * dims.ple,
        "one": 1,
        "experts": dims.experts,
        "expert_ffn": dims.expert_ffn,
        "expert_ffn2": 2 * dims.expert_ffn,
    }
    if layer is not None:
        sizes |= {
            "head": layer.head_dim,
            "q": layer.heads * layer.head_dim,
            "kv": layer.kv_heads * layer.head_dim,
            "ffn": layer.ffn,
        }
    return sizes
