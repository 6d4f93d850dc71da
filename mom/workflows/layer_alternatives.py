"""`mom slice --layers swa`: what dropping the full-attention layers costs beside two alternatives, shown."""

from typing import Any

from mom.display import console
from mom.workflows.domain_text import has_text, own_text
from slices import manifest
from slices.cut.request import SliceRequest
from slices.errors import SliceError
from slices.measure.compare_mode import NOT_MEASURED, CompareMode
from slices.measure.heldout import cut_heldout
from slices.measure.rival import MAX_AUTO_BYTES
from slices.model_ref import open_model
from slices.progress import Progress
from slices.search.layer_alternatives import measure_layer_alternatives

TEXT_BYTES = 8_000  # of selection text: about 2,000 tokens


def layer_alternatives(
    request: SliceRequest, compare: CompareMode, progress: Progress
) -> dict[str, Any] | None:
    """The alternatives to a finished slice of `--layers swa`, as JSON; None for other slices.

    With `--compare auto` they are measured for parents of at most 4 GB and where there is text of the domain.
    """
    if request.layers != "swa" or compare is CompareMode.NEVER:
        return None
    made = manifest.read(request.target)
    parent = open_model(request.model)
    if compare is CompareMode.AUTO and (parent.nbytes > MAX_AUTO_BYTES or not has_text(made)):
        return {"found": [], "refused": {}, "reason": NOT_MEASURED}
    try:
        text = cut_heldout(own_text(made.domain, made, progress).selection().documents, TEXT_BYTES)
        found, refused = measure_layer_alternatives(request, parent.folder, text, None, progress)
    except SliceError as error:
        return {"found": [], "refused": {}, "reason": str(error)}
    return {"found": [each.to_json() for each in found], "refused": refused, "reason": None}


def show_layer_alternatives(figures: dict[str, Any]) -> None:
    """The alternatives as a table, the one of fewest bits first, which is named."""
    if figures["reason"]:
        console.warn(f"what keeping the full-attention layers as sliding ones costs: {figures['reason']}")
        return
    title = "raw, on selection text of the domain; the layers that full attention is taken from"
    columns = ["what is done", "layers", "weights", "KL", "bits per byte", "over the parent"]
    console.print_table(title, columns, [_row(each) for each in figures["found"]])
    for name, reason in figures["refused"].items():
        console.warn(f"{name}: {reason}")
    best = figures["found"][0]
    console.out.print(f"fewest bits: {best['name']}", soft_wrap=True, markup=False)


def _row(each: dict[str, Any]) -> list[str]:
    kl, bits, over = each["kl"], each["bits_per_byte"], each["bits_over_parent"]
    return [
        each["name"],
        str(len(each["layers"])),
        console.size(each["bytes"]),
        f"{kl['value']:.3f} ± {kl['stderr']:.3f}",
        f"{bits['value']:.3f} ± {bits['stderr']:.3f}",
        f"{over['value']:+.3f} ± {over['stderr']:.3f}",
    ]
