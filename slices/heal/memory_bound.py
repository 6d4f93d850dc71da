"""How much memory a healing run may take, said before it begins: an upper bound, from shapes alone."""

from dataclasses import dataclass
from pathlib import Path

from slices.architecture.anatomy import Anatomy, read_anatomy, weigh
from slices.checkpoint import open_checkpoint
from slices.errors import RunFailed
from slices.families.table import Layer
from slices.heal.objective import CHUNK
from slices.heal.settings import Healing
from slices.system_memory import available_memory

LIBRARIES = 900_000_000  # of a process with torch and transformers loaded
_LOGITS = 6  # float32 arrays of a chunk's logits that are alive at once
_SLACK = 1.1


@dataclass(frozen=True)
class Memory:
    """Bytes by use; `total` is the bound."""

    teacher: int
    student: int
    learning: int  # gradients, AdamW's moments, bf16 copies of the weights
    activations: int
    libraries: int = LIBRARIES

    @property
    def total(self) -> int:
        """All of it, with some slack."""
        parts = (self.teacher, self.student, self.learning, self.activations)
        return int(sum(parts) * _SLACK) + self.libraries


def bound(slice_folder: Path, parent: Path | None, healing: Healing, compute_bytes: int) -> Memory:
    """What healing the slice will need at most; `parent` None for a saved teacher.

    Args:
        compute_bytes: of a number in matrix products: 2 for bf16, 4 for float32.
    """
    anatomy = read_anatomy(open_checkpoint(slice_folder).config)
    parts, _ = weigh(anatomy)
    shape = anatomy.shape
    rows = shape.vocab * shape.hidden
    trained = _trained(anatomy, healing, parts.decoder)
    teacher = 0
    if parent is not None:
        theirs, _ = weigh(read_anatomy(open_checkpoint(parent).config))
        teacher = compute_bytes * (theirs.total + rows)
    return Memory(
        teacher=teacher,
        student=(4 if healing.method == "full" else compute_bytes) * parts.total + compute_bytes * rows,
        learning=(4 + 8) * trained + compute_bytes * parts.decoder,
        activations=_activations(anatomy, healing),
    )


def check(memory: Memory) -> None:
    """Refuse a run that would not fit.

    Raises:
        RunFailed: less memory is available than the bound; says what would need less.
    """
    free = available_memory()
    if free is not None and free < memory.total:
        raise RunFailed(
            f"healing may take {memory.total / 1e9:.1f} GB and {free / 1e9:.1f} GB are available: teacher "
            f"{memory.teacher / 1e9:.1f}, slice {memory.student / 1e9:.1f}, learning "
            f"{memory.learning / 1e9:.1f}, activations {memory.activations / 1e9:.1f}. A saved teacher "
            "(--save-teacher on a larger machine), --method norms or lora, or a smaller --batch need less"
        )


def _trained(anatomy: Anatomy, healing: Healing, decoder: int) -> int:
    """Parameters that change."""
    if healing.method == "full":
        return decoder
    if healing.method == "norms":
        return len(anatomy.layers) * (8 * anatomy.shape.hidden + 1024)
    return sum(healing.rank * _sides(anatomy, layer) for layer in anatomy.layers)


def _sides(anatomy: Anatomy, layer: Layer) -> int:
    """Inputs and outputs of a layer's matrices, together."""
    hidden, heads = anatomy.shape.hidden, layer.head_dim * (2 * layer.heads + 2 * layer.kv_heads)
    return 7 * hidden + heads + 3 * layer.ffn + 2 * (hidden + anatomy.shape.ple)


def _activations(anatomy: Anatomy, healing: Healing) -> int:
    """Kept for the backward pass: about these many bytes a token, by layer; and a chunk of logits."""
    shape = anatomy.shape
    heads = [layer.head_dim * (layer.heads + 2 * layer.kv_heads) for layer in anatomy.layers]
    each = sum(
        80 * shape.hidden + 16 * layer.ffn + 24 * wide + 40 * shape.ple
        for layer, wide in zip(anatomy.layers, heads, strict=True)
    )
    return healing.batch * healing.context * each + _LOGITS * 4 * CHUNK * shape.vocab
