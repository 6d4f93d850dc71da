"""The rival of a slice: the parent's best plain quant of at most its bytes.

It is chosen on selection text among all that fit, and measured anew on verdict text: a rival that was chosen
on the text that it is compared on would be the luckiest of many there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slices.checkpoint import open_checkpoint
from slices.errors import BadConfig
from slices.measure.compare_mode import NOT_MEASURED, CompareMode
from slices.measure.heldout import SAMPLE_BYTES, Heldout, cut_heldout
from slices.measure.paired import MIN_DOCUMENTS
from slices.measure.plain import PlainQuant, bf16_export, count_missing, plain_quants
from slices.measure.plain_imatrix import cached_imatrix, plain_imatrix
from slices.measure.plain_sizes import PlainType, plain_sizes
from slices.progress import Progress

MAX_AUTO_BYTES = 4_000_000_000  # of parents to quantize and measure that nobody asked for


@dataclass(frozen=True)
class RivalText:
    """One domain's text in the three parts that a comparison reads: the first for the importance matrix, the
    second to choose the rival, the third to compare."""

    calibration: tuple[str, ...]
    selection: Heldout
    verdict: Heldout


@dataclass(frozen=True)
class Rival:
    """The chosen plain quant, with its bits on verdict text, and how many it was chosen among."""

    quant: PlainQuant
    compared: int


def cut_rival_text(
    calibration: Sequence[str], selection: Sequence[str], verdict: Sequence[str], limit: int = SAMPLE_BYTES
) -> RivalText:
    """Samples of at most `limit` bytes of the selection and the verdict documents.

    Raises:
        BadConfig: one of the two has fewer than two documents with text.
    """
    cut = {}
    for part, documents in (("selection", selection), ("verdict", verdict)):
        try:
            cut[part] = cut_heldout(documents, limit)
        except BadConfig as error:
            raise BadConfig(f"the {part} text: {error}") from None
    return RivalText(tuple(calibration), cut["selection"], cut["verdict"])


def too_few_documents(count: int) -> str:
    """Why nothing is claimed on `count` documents."""
    return f"{count} documents; a verdict needs at least {MIN_DOCUMENTS}"


def find_rival(
    parent: Path,
    text: RivalText,
    max_bytes: int,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Rival | None:
    """Choose the rival of a file of `max_bytes` and measure it; None where no plain quant is so small.

    Raises:
        BadConfig: there are too few verdict documents for a comparison; how many is said.
        SliceError: as `slices.measure.plain.plain_quants`.
    """
    kinds = candidates(parent, max_bytes, bool(text.calibration))
    if not kinds:
        return None
    if text.verdict.documents < MIN_DOCUMENTS:
        raise BadConfig(too_few_documents(text.verdict.documents))
    imatrix = plain_imatrix(parent, text.calibration, progress)
    with bf16_export(parent) as export:
        tried = plain_quants(parent, text.selection, kinds, export, imatrix, threads, progress)
        best = min(tried, key=lambda each: each.values.sum())
        [measured] = plain_quants(parent, text.verdict, [best.kind], export, imatrix, threads, progress)
    return Rival(quant=measured, compared=len(tried))


def skip_reason(
    parent: Path, text: RivalText, max_bytes: int, when: CompareMode = CompareMode.AUTO
) -> str | None:
    """Why the rival of a file of `max_bytes` is not looked for, None where it is.

    With AUTO it is for parents of at most `MAX_AUTO_BYTES` where measuring is cached or takes minutes:
    the plain quants to make times the parent's bytes are at most that, too.
    """
    if when is CompareMode.NEVER:
        return NOT_MEASURED
    nbytes = open_checkpoint(parent).nbytes
    if when is CompareMode.ALWAYS or nbytes > MAX_AUTO_BYTES:
        return None if when is CompareMode.ALWAYS else f"the parent is big, so {NOT_MEASURED}"
    kinds = candidates(parent, max_bytes, bool(text.calibration))
    imatrix = cached_imatrix(parent, text.calibration)
    known = imatrix is not None or not text.calibration
    missing = count_missing(parent, text.selection, kinds, imatrix) if known else len(kinds)
    if missing * nbytes <= MAX_AUTO_BYTES:
        return None
    return f"{missing} plain quants of the parent are to be measured for it first; --compare always does"


def candidates(parent: Path, max_bytes: int, with_imatrix: bool) -> list[PlainType]:
    """The plain quants of at most `max_bytes`, the smallest first, without those that another one of them
    surely beats: it gives every tensor whose type differs at least half a bit more."""
    return [each.kind for each in plain_sizes(parent, with_imatrix) if each.rivals(max_bytes)]
