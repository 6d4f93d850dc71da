"""The published FFN-ratio predictor: which type a model is said to survive. Advice, never a gate.

The claim: r = intermediate size / hidden size decides. Below 3.0 a model is safe at Q2_K (confidence 0.90,
else Q3_K), above 5.5 as well (0.85); between them it is in danger (0.95 with sliding windows, 0.80 without)
and should take Q3_K, else Q4_K_M. A "3D" extension adds depth and the share of sliding layers; no threshold
of these two is known to us, so their values are stated and decide nothing. Of experts the claim says
nothing: the ratio of a layer is that of its dense FFN.

Nothing is measured here. How the claim fared is in `slices.measure.track_record`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from slices.architecture.anatomy import Anatomy

Verdict = Literal["safe", "danger"]
LOW, HIGH = 3.0, 5.5  # published: the danger zone, both ends included
SMALLEST = "Q2_K"  # what the verdict is about
PASSES = 1.5
"""Ours, since none was published: a type passes with at most this many times the perplexity of bf16. It
lies between what users of Gemma 4 E4B call good (1.17 at Q5_K_M) and broken (3.2 at Q4_K_M)."""
_ORDER = (SMALLEST, "Q3_K", "Q4_K_M")  # by bits
_TYPES: Mapping[Verdict, tuple[str, str]] = {"safe": (SMALLEST, "Q3_K"), "danger": ("Q3_K", "Q4_K_M")}


@dataclass(frozen=True)
class Group:
    """The layers of one FFN ratio, and what the claim says of them."""

    ratio: float
    layers: int
    share: float  # of the model's FFN parameters
    verdict: Verdict
    confidence: float


@dataclass(frozen=True)
class Advice:
    """What the claim says of a model. `depth` (layers) and `swa_share` are terms without a threshold."""

    verdict: Verdict
    confidence: float
    type: str
    fallback: str
    groups: tuple[Group, ...]
    depth: int
    swa_share: float
    danger_zone: tuple[float, float] = (LOW, HIGH)


@dataclass(frozen=True)
class Ratio:
    """A measured perplexity, as a multiple of the bf16 model's, with its standard error."""

    value: float
    stderr: float = 0.0

    def __str__(self) -> str:
        return f"{self.value:.3g} ± {self.stderr:.2g}" if self.stderr else f"{self.value:.3g}"


def advise(anatomy: Anatomy) -> Advice:
    """What the claim says of the model that a config describes."""
    hidden = anatomy.dims.hidden
    return advise_layers(
        [layer.ffn / hidden for layer in anatomy.layers], len(anatomy.sliding) / len(anatomy.layers)
    )


def advise_layers(ratios: Sequence[float], swa_share: float) -> Advice:
    """What the claim says of a model of any family.

    Where layers differ, the worst group decides: a model is no safer than the layers that all its tokens
    pass. Its confidence is the group's; where all are safe, the lowest.

    Args:
        ratios: intermediate / hidden size of each layer.
        swa_share: sliding layers / layers, 0 to 1.

    Raises:
        ValueError: no layer, or a ratio that is not positive.
    """
    if not ratios or min(ratios) <= 0:
        raise ValueError(f"expected a positive FFN ratio for each layer, found {list(ratios)}")
    total = sum(ratios)
    groups = []
    for ratio, same in groupby(sorted(ratios)):
        count = len(list(same))
        verdict, confidence = judge(ratio, swa_share > 0)
        groups.append(
            Group(
                ratio=ratio, layers=count, share=count * ratio / total, verdict=verdict, confidence=confidence
            )
        )
    danger = [group for group in groups if group.verdict == "danger"]
    deciding = danger[0] if danger else min(groups, key=lambda group: group.confidence)
    kind, fallback = _TYPES[deciding.verdict]
    return Advice(
        verdict=deciding.verdict,
        confidence=deciding.confidence,
        type=kind,
        fallback=fallback,
        groups=tuple(groups),
        depth=len(ratios),
        swa_share=swa_share,
    )


def judge(ratio: float, sliding: bool) -> tuple[Verdict, float]:
    """Verdict and confidence of one ratio, as published; `sliding`: the model has sliding-window layers."""
    if ratio < LOW:
        return "safe", 0.90
    if ratio > HIGH:
        return "safe", 0.85
    return "danger", 0.95 if sliding else 0.80


def passes(measured: Mapping[str, Ratio], kind: str, limit: float = PASSES) -> bool | None:
    """Whether a type passed; None if it was not measured, or lies within two errors of a limit.

    Perplexity may not fall below 1 / `limit` either: a model that was gibberish may become surer by being
    damaged, as one of sliding layers alone did (0.2 times, at a KL of 4.5 nats). A type that was not measured
    has failed where one with more bits has.
    """
    name = measured_as(measured, kind)
    if name is None:
        more_bits = _ORDER[_ORDER.index(kind) + 1 :] if kind in _ORDER else ()
        return False if any(passes(measured, each, limit) is False for each in more_bits) else None
    found = measured[name]
    error = found.stderr / found.value  # of the logarithm, which is what was averaged
    beyond = abs(math.log(found.value)) - math.log(limit)
    return None if abs(beyond) < 2 * error else beyond <= 0


def measured_as(measured: Mapping[str, Ratio], kind: str) -> str | None:
    """The type's name among the measured ones: Q3_K, which is no file type, is Q3_K_M, else Q3_K_S."""
    names = [kind, "Q3_K_M", "Q3_K_S"] if kind == "Q3_K" else [kind]
    return next((name for name in names if name in measured), None)


def agreed(advice: Advice, measured: Mapping[str, Ratio], limit: float = PASSES) -> bool | None:
    """Whether the measurement agreed with the verdict: "safe" if Q2_K passes, "danger" if it fails.

    Args:
        measured: perplexity relative to bf16, by type.
        limit: the highest ratio that passes.

    Returns:
        None where the measurement does not decide.
    """
    passed = passes(measured, SMALLEST, limit)
    return None if passed is None else passed == (advice.verdict == "safe")


def sentence(advice: Advice) -> str:
    """The advice on one line."""
    ratios = " and ".join(f"{group.ratio:.3g}" for group in advice.groups)
    windows = f"{advice.swa_share:.0%} of {advice.depth} layers sliding"
    return (
        f"FFN ratio {ratios}, {windows}: the published predictor says {advice.verdict} "
        f"(confidence {advice.confidence:.2f}), take {advice.type}, else {advice.fallback}"
    )


def verdict_against(advice: Advice, measured: Mapping[str, Ratio], limit: float = PASSES) -> str:
    """On one line: whether the verdict held, and how the two advised types did."""
    words = {True: "agreed", False: "disagreed", None: "did not decide"}
    said = f"{advice.verdict!r} means that {SMALLEST} {'passes' if advice.verdict == 'safe' else 'fails'}"
    types = dict.fromkeys((SMALLEST, advice.type, advice.fallback))
    results = ", ".join(_result(measured, kind, limit) for kind in types)
    return f"the measurement {words[agreed(advice, measured, limit)]} ({said} at {limit:g}x): {results}"


def _result(measured: Mapping[str, Ratio], kind: str, limit: float) -> str:
    name = measured_as(measured, kind)
    if name is None:
        return f"{kind} not measured"
    word = {True: "passes", False: "fails", None: "is too close to tell"}[passes(measured, kind, limit)]
    return f"{name} {word} ({measured[name]}x the perplexity)"
