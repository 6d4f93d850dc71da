"""Whether a slice is worth its bytes: the verdict from figures alone, against the parent's plain quants.

A slice is dominated where a plain quant of at most its bytes needs fewer bits for the domain's text, by more
than two standard errors of the difference, document by document. Measures nothing.
"""

from collections.abc import Sequence
from typing import Literal

from slices.estimate import Estimate, Values, ratio
from slices.manifest import Verdict
from slices.measure.heldout import Heldout
from slices.measure.plain import PlainQuant

MIN_STANDARD_ERRORS = 2.0  # standard errors
VerdictName = Literal["dominated", "level", "better", "unknown"]


def verdict(
    variant: str, domain: str, bits: Values, sizes: Values, rivals: Sequence[PlainQuant], text: Heldout
) -> Verdict:
    """Compare a file with the plain quants of at most its bytes; without any it is "better".

    Args:
        bits, sizes: of each document, under the slice and in bytes; (documents,).
    """
    if not rivals:
        reason = "no plain quant of the parent is as small"
        return Verdict(variant=variant, domain=domain, verdict="better", data=text.sha256, reason=reason)
    best = min(rivals, key=lambda each: each.values.sum())
    difference = ratio(bits - best.values, sizes)
    return Verdict(
        variant=variant,
        domain=domain,
        verdict=_verdict_name(difference),
        data=text.sha256,
        rival=best.label,
        rival_bytes=best.bytes,
        difference=difference.value,
        stderr=difference.stderr,
        compared=len(rivals),
    )


def unknown_verdict(variant: str, domain: str, reason: str) -> Verdict:
    """A verdict that was not reached, and why."""
    return Verdict(variant=variant, domain=domain, verdict="unknown", reason=reason)


def verdict_sentence(found: Verdict) -> str:
    """A verdict in words."""
    if found.verdict == "unknown":
        return f"whether a plain quant of the parent is better at equal bytes is not known: {found.reason}"
    if found.rival is None:
        return f"dominated by nothing: {found.reason}"
    rival = f"the parent as {found.rival} ({found.rival_bytes / 1e6:.1f} MB)"
    figures = f"this file {found.difference:+.3f} ± {found.stderr:.3f} bits per byte"
    return {
        "dominated": f"DOMINATED: {rival} is no larger and better on {found.domain} ({figures})",
        "level": f"no better than {rival}, which is no larger, on {found.domain} ({figures})",
        "better": f"dominated by nothing: better than {rival} on {found.domain} ({figures})",
    }[found.verdict]


def _verdict_name(difference: Estimate) -> VerdictName:
    if abs(difference.value) <= MIN_STANDARD_ERRORS * difference.stderr:
        return "level"
    return "dominated" if difference.value > 0 else "better"
