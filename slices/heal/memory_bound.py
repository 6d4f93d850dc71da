"""An upper bound on the memory of a healing run, computed from shapes before anything is loaded."""

from dataclasses import dataclass, replace
from pathlib import Path

from slices.architecture.anatomy import Anatomy, count_parameters, read_anatomy
from slices.checkpoint import open_checkpoint
from slices.errors import RunFailed
from slices.families.table import Layer
from slices.heal.objective import CHUNK
from slices.heal.settings import HealConfig, HealMethod
from slices.manifest import Parameters
from slices.system_memory import available_memory

LIBRARIES = 900_000_000  # bytes of a process with torch and transformers loaded
_LOGIT_COPIES = 6  # float32 arrays of a chunk's logits alive at once
_MASK_BYTES = 10  # of each pair of positions of a row, while its attention mask is built
_MARGIN = 1.1


@dataclass(frozen=True)
class MemoryBound:
    """Bytes by use; `total` is the bound.

    Attributes:
        optimizer: gradients, AdamW's moments, and copies of the weights in the compute dtype.
        quantizer: quantization errors of the matrices, and the quantized embeddings, under `--qat`.
    """

    teacher: int
    student: int
    optimizer: int
    activations: int
    quantizer: int = 0
    libraries: int = LIBRARIES

    @property
    def total(self) -> int:
        """The sum, with a margin of a tenth on all but the libraries."""
        parts = (self.teacher, self.student, self.optimizer, self.activations, self.quantizer)
        return int(sum(parts) * _MARGIN) + self.libraries


def bound(slice_folder: Path, parent: Path | None, config: HealConfig, compute_bytes: int) -> MemoryBound:
    """The memory bound of healing a slice; `parent` None for a cached teacher.

    Args:
        compute_bytes: bytes per element in matrix products: 2 for bf16, 4 for float32.

    Dropped layers that fade out are the teacher's own modules, so that they add activations alone.
    """
    anatomy = read_anatomy(open_checkpoint(slice_folder).config)
    parts, _ = count_parameters(anatomy)
    embedding = anatomy.dims.vocab * anatomy.dims.hidden
    teacher, running = 0, anatomy
    if parent is not None:
        whole = read_anatomy(open_checkpoint(parent).config)
        running = replace(anatomy, layers=whole.layers) if config.fade else anatomy
        parent_parts, _ = count_parameters(whole)
        teacher = compute_bytes * (parent_parts.total + embedding)
    full = config.method == HealMethod.FULL
    trainable = _trainable_parameters(anatomy, config, parts.decoder)
    return MemoryBound(
        teacher=teacher,
        student=(4 if full else compute_bytes) * parts.total + compute_bytes * embedding,
        optimizer=(4 + 8) * trainable + compute_bytes * parts.decoder,
        activations=_activations(running, config),
        quantizer=_quantizer(parts, 4 if full else compute_bytes) if config.qat else 0,
    )


def check(memory: MemoryBound) -> None:
    """Refuse a run that would not fit.

    Raises:
        RunFailed: less memory is available than the bound; the message names what needs less.
    """
    free = available_memory()
    if free is not None and free < memory.total:
        raise RunFailed(
            f"healing may take {memory.total / 1e9:.1f} GB and {free / 1e9:.1f} GB are available: teacher "
            f"{memory.teacher / 1e9:.1f}, slice {memory.student / 1e9:.1f}, optimizer "
            f"{memory.optimizer / 1e9:.1f}, activations {memory.activations / 1e9:.1f}, quantizer "
            f"{memory.quantizer / 1e9:.1f}. A cached teacher "
            "(--save-teacher on a larger machine), --method norms or lora, a smaller --batch or fewer "
            "--row-tokens need less"
        )


def _quantizer(parts: Parameters, width: int) -> int:
    """A float32 copy of every matrix that is trained, and one of the embeddings at `width` bytes a weight."""
    return 4 * parts.decoder + width * (parts.embedding + parts.per_layer_embedding)


def _trainable_parameters(anatomy: Anatomy, config: HealConfig, decoder: int) -> int:
    if config.method == HealMethod.FULL:
        return decoder
    if config.method == HealMethod.NORMS:
        return len(anatomy.layers) * (8 * anatomy.dims.hidden + 1024)
    return sum(config.rank * _matrix_sides(anatomy, layer) for layer in anatomy.layers)


def _matrix_sides(anatomy: Anatomy, layer: Layer) -> int:
    """Input plus output widths of a layer's matrices, summed: LoRA parameters per unit of rank."""
    hidden, heads = anatomy.dims.hidden, layer.head_dim * (2 * layer.heads + 2 * layer.kv_heads)
    return 7 * hidden + heads + 3 * layer.ffn + 2 * (hidden + anatomy.dims.ple)


def _activations(anatomy: Anatomy, config: HealConfig) -> int:
    """Bytes kept for the backward pass: an estimate per token, by layer; the masks; and a chunk of logits.

    The fused attention keeps no scores, so that only the masks grow with the square of a row.
    """
    shape = anatomy.dims
    heads = [layer.head_dim * (layer.heads + 2 * layer.kv_heads) for layer in anatomy.layers]
    per_token = sum(
        80 * shape.hidden + 16 * layer.ffn + 24 * width + 40 * shape.ple
        for layer, width in zip(anatomy.layers, heads, strict=True)
    )
    masks = _MASK_BYTES * config.row_tokens**2
    return config.batch * (config.row_tokens * per_token + masks) + _LOGIT_COPIES * 4 * CHUNK * shape.vocab
