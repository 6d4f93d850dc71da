"""What dropping the full-attention layers costs, beside two other ways to be rid of full attention.

The slice of `mom slice --layers swa` is measured against its parent on selection text, and so are a slice
that keeps all layers, the full-attention ones limited to the sliding window, and one that lacks as many
layers, chosen by their scores on the domain's text. Nothing is healed. The other slices are cut, measured and
removed; all have the same rows and neurons.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from slices import manifest
from slices.architecture.attention import Attention
from slices.checkpoint import weight_files
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.errors import InvalidCut
from slices.estimate import Estimate, Values, ratio
from slices.files.temp_files import temp_dir
from slices.home import home
from slices.measure.divergence import measure_divergence
from slices.measure.heldout import Heldout
from slices.measure.reference import Reference
from slices.progress import Progress, no_progress
from slices.runtimes.open import open_runtime
from slices.search.trial import measure_parent, parent_reference

DROPPED, SLIDING, OTHERS = "full-attention layers dropped", "full-attention layers sliding", "others dropped"


@dataclass(frozen=True)
class LayerAlternative:
    """One way to cut, measured raw.

    `layers` are the parent's indices; `bits_over_parent` in bits per byte, paired by document with the
    parent in its own tokens; `kl` in nats a token.
    """

    name: str
    layers: tuple[int, ...]
    attention: str
    bytes: int
    bits_per_byte: Estimate
    bits_over_parent: Estimate
    kl: Estimate

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def measure_layer_alternatives(
    request: SliceRequest,
    parent: Path,
    text: Heldout,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> tuple[list[LayerAlternative], dict[str, str]]:
    """The alternatives, the one of fewest bits first, and why others could not be cut, by their names.

    Args:
        request: of a finished slice whose `layers` are "swa".
        text: selection text of its domain.

    Raises:
        SliceError: a model cannot be cut or run, or the disk is full.
    """
    kept = len(manifest.read(request.target).layers)
    bits, sizes = measure_parent(parent, text, threads, progress)
    reference = parent_reference(request.slice_name, request.target, parent, text, threads, progress)
    context = _Context(
        parent_bits=bits,
        document_bytes=sizes,
        reference=reference,
        threads=threads,
        progress=progress,
    )
    found, refused = [], {}
    with temp_dir(home() / "search") as scratch:
        for number, (name, other) in enumerate(_requests(request, kept, scratch).items()):
            progress(f"measure {name}", number, 3)
            try:
                if other is not request:
                    cut(other, progress)
                found.append(_measure(name, other.target, context))
            except InvalidCut as error:
                refused[name] = str(error)
    return sorted(found, key=lambda each: each.bits_per_byte.value), refused


@dataclass(frozen=True)
class _Context:
    """What the measurements share.

    Attributes:
        parent_bits: bits of each document under the parent in its own tokens, (documents,).
        document_bytes: (documents,).
        reference: the parent's distributions in the slices' tokens.
    """

    parent_bits: Values
    document_bytes: Values
    reference: Reference
    threads: int | None
    progress: Progress


def _measure(name: str, folder: Path, context: _Context) -> LayerAlternative:
    runtime = open_runtime(folder, None, context.threads)
    try:
        measured = measure_divergence(name, runtime, context.reference, context.progress)
    finally:
        runtime.close()
    entry = manifest.read(folder)
    return LayerAlternative(
        name=name,
        layers=tuple(entry.layers),
        attention=str(entry.attention),
        bytes=sum(file.stat().st_size for file in weight_files(folder)),
        bits_per_byte=measured.bits_per_byte,
        bits_over_parent=ratio(measured.sums.bits - context.parent_bits, context.document_bytes),
        kl=measured.kl,
    )


def _requests(request: SliceRequest, kept: int, scratch: Path) -> dict[str, SliceRequest]:
    """What is cut for each alternative; the first is there already."""
    sliding = replace(request, layers="all", attention=Attention.SLIDING, repair=False, portable=False)
    others = replace(request, layers=f"auto:{kept}", repair=False)
    name = request.slice_name
    return {
        DROPPED: request,
        SLIDING: replace(sliding, output=scratch / "sliding", name=name, force=False),
        OTHERS: replace(others, output=scratch / "others", name=name, force=False),
    }
