"""Whether a slice is worth its bytes: the verdict from figures alone, against the parent's plain quants.

A slice is dominated where the best plain quant of at most its bytes needs fewer bits for the domain's text,
and better where it needs more, by the paired test over documents (p < 0.05). Where no plain quant is as small
it is alone, which says nothing of its quality. Measures nothing.
"""

from collections.abc import Mapping
from typing import Literal

from slices.estimate import Values
from slices.manifest import Verdict
from slices.measure.paired import Difference, holm, paired_difference
from slices.measure.rival import Rival, RivalText, too_few_documents
from slices.text.corpus import Corpus

VerdictName = Literal["dominated", "level", "better", "alone", "unknown"]


def verdict(
    variant: str, domain: str, bits: Values, sizes: Values, rival: Rival | None, text: RivalText
) -> Verdict:
    """Compare a file with its rival; without any it is "alone", with too few documents "unknown".

    Args:
        bits, sizes: of each verdict document, under the slice and in bytes; (documents,).
        rival: None where no plain quant of the parent is as small.
    """
    if rival is None:
        return alone_verdict(variant, domain)
    difference = paired_difference(bits, rival.quant.values, sizes)
    return Verdict(
        variant=variant,
        domain=domain,
        verdict=_verdict_name(difference),
        data=text.verdict.sha256,
        selection=text.selection.sha256,
        calibration=Corpus("files", text.calibration).sha256 if text.calibration else "",
        rival=rival.quant.label,
        rival_bytes=rival.quant.bytes,
        difference=difference.value,
        low=difference.low,
        high=difference.high,
        p=difference.p,
        n=difference.n,
        compared=rival.compared,
        reason="" if difference.p is not None else too_few_documents(difference.n),
    )


def correct_verdicts(found: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """Verdicts that are read together: p-values corrected by `holm`, and the verdicts that follow from them.

    The intervals stay those of each comparison alone.
    """
    values = holm([each.p if each.rival else None for each in found.values()])
    return {
        name: each if p is None else each.model_copy(update={"p": p, "verdict": _named(each, p)})
        for (name, each), p in zip(found.items(), values, strict=True)
    }


def _named(found: Verdict, p: float) -> VerdictName:
    value, low, high = found.difference or 0.0, found.low, found.high
    return _verdict_name(Difference(value=value, low=low, high=high, p=p, n=found.n))


def alone_verdict(variant: str, domain: str) -> Verdict:
    """The verdict on a file that is smaller than every plain quant of its parent."""
    reason = "no plain quant of the parent is as small"
    return Verdict(variant=variant, domain=domain, verdict="alone", reason=reason)


def unknown_verdict(variant: str, domain: str, reason: str) -> Verdict:
    """A verdict that was not reached, and why."""
    return Verdict(variant=variant, domain=domain, verdict="unknown", reason=reason)


def verdict_sentence(found: Verdict) -> str:
    """A verdict in words."""
    if found.verdict == "unknown":
        return f"whether a plain quant of the parent is better at equal bytes is not known: {found.reason}"
    if found.verdict == "alone":
        return f"no rival as small: {found.reason}, so nothing is claimed about its quality"
    rival = f"the parent as {found.rival} ({found.rival_bytes / 1e6:.1f} MB)"
    figures = (
        f"this file {found.difference:+.3f} bits per byte, 95 % interval {found.low:+.3f} to "
        f"{found.high:+.3f}, p = {found.p:.2g}, {found.n} documents"
    )
    return {
        "dominated": f"DOMINATED: {rival} is no larger and better on {found.domain} ({figures})",
        "level": f"no better than {rival}, which is no larger, on {found.domain} ({figures})",
        "better": f"better than {rival}, the best plain quant as small, on {found.domain} ({figures})",
    }[found.verdict]


def _verdict_name(difference: Difference) -> VerdictName:
    if difference.p is None:
        return "unknown"
    if not difference.significant:
        return "level"
    return "dominated" if difference.value > 0 else "better"
