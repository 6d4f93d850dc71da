"""Identity layers in a Gemma 4 GGUF, by which stock llama.cpp reads the K/V of the right layers.

llama.cpp looks for the K/V of a shared layer by position: with K layers that have K/V of their own, a
sliding layer reads layer K - 2 and a full one layer K - 1. It also ends its process on fewer than two
such layers, and without any sliding layer. An identity layer is a block whose output is its input, since
its matrices are zero; inserted in the right place, it shifts the positions to where llama.cpp looks. Its
sizes are the smallest that llama.cpp takes: they differ by block there, as they cannot in transformers.
"""

from collections.abc import Sequence

from slices.architecture.anatomy import Anatomy
from slices.dialects.table import Block, Blocks
from slices.errors import Unsupported
from slices.families.table import FULL, SLIDING, Layer, LayerType

FFN = 32  # neurons of an identity layer: one block of the quantized types


def add_identity_layers(anatomy: Anatomy) -> Blocks:
    """The slice's layers with the identity layers that stock llama.cpp needs.

    Raises:
        Unsupported: no identity layer can mend the order of the layers that others read.
    """
    own = [layer.index for layer in anatomy.layers if not layer.shared]
    shared = [layer.index for layer in anatomy.layers if layer.shared]
    before, after = _missing(anatomy, own)
    order = [*[None] * before, *own, *[None] * after, *shared]
    blocks = tuple(_block(anatomy, index, source) for index, source in enumerate(order))
    _check_donors(anatomy, blocks, len(order) - len(shared))
    return blocks


def _missing(anatomy: Anatomy, own: Sequence[int]) -> tuple[int, int]:
    """How many identity layers go before the layers with K/V of their own, and how many after."""
    reads = anatomy.donors
    after = 1 if SLIDING in reads and reads[SLIDING] == own[-1] and FULL not in reads else 0
    before = max(0 if anatomy.sliding or after else 1, 2 - len(own) - after)
    return before, after


def _check_donors(anatomy: Anatomy, blocks: Blocks, own: int) -> None:
    found: dict[LayerType, int | None] = {SLIDING: blocks[own - 2].source, FULL: blocks[own - 1].source}
    for kind, donor in found.items():
        wanted = anatomy.donors.get(kind)
        if wanted is not None and donor != wanted:
            raise Unsupported(
                f"the shared {kind} layers read the K/V of layer {wanted}, but stock llama.cpp would take "
                f"layer {donor}: it wants the last two layers with K/V of their own to be the sliding donor "
                "and then the full one; serve this slice in torch"
            )


def _block(anatomy: Anatomy, index: int, source: int | None) -> Block:
    if source is not None:
        return Block(source, anatomy.layers[source])
    head = next((layer.head_dim for layer in anatomy.layers if layer.type == SLIDING), None)
    layer = Layer(
        index=index,
        type=SLIDING,
        head_dim=head or int(anatomy.config["head_dim"]),
        heads=1,
        kv_heads=1,
        ffn=FFN,
        has_value=False,
    )
    return Block(None, layer)
