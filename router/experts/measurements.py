"""The measurements of a served model: what slice.json records of the file that is run, and of the parent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from slices import manifest
from slices.estimate import Estimate
from slices.manifest import Manifest

TextKey: TypeAlias = tuple[str, str]  # domain, digest of the text
MetricKey: TypeAlias = tuple[str, str, str]  # domain, metric, digest of the text or items; the latest last


@dataclass(frozen=True)
class ExpertMeasurements:
    """Size, speed and quality of a model.

    `estimates` are the model's own, `parent_estimates` its parent's on the same text and items. `whole`: it
    is the parent, quantized or not, with nothing cut and nothing trained. `parent`: the digest of the
    parent's headers.
    """

    bytes: int
    estimates: Mapping[MetricKey, Estimate] = field(default_factory=dict)
    parent_estimates: Mapping[MetricKey, Estimate] = field(default_factory=dict)
    decode_tokens_per_second: float | None = None
    whole: bool = False
    parent: str = ""

    @property
    def bits_per_byte(self) -> dict[TextKey, float]:
        """Its bits per byte by text."""
        return _bits_per_byte(self.estimates)

    @property
    def parent_bits_per_byte(self) -> dict[TextKey, float]:
        """Its parent's bits per byte by text."""
        return _bits_per_byte(self.parent_estimates)


def read_measurements(card: Manifest, file: str, size: int) -> ExpertMeasurements:
    """The measurements of `file`, of `size` bytes, in a slice's manifest."""
    speeds = [e.value for e in card.measurements if (e.metric, e.variant) == (manifest.SPEED, file)]
    return ExpertMeasurements(
        bytes=size,
        estimates=_estimates(card, file),
        parent_estimates=_estimates(card, manifest.PARENT),
        decode_tokens_per_second=speeds[-1] if speeds else None,
        whole=_is_whole(card),
        parent=card.parent.headers_sha256,
    )


def _estimates(card: Manifest, variant: str) -> dict[MetricKey, Estimate]:
    found: dict[MetricKey, Estimate] = {}
    for each in card.measurements:
        if each.variant == variant and each.domain:
            key = (each.domain, each.metric, each.data)
            found.pop(key, None)
            found[key] = Estimate(each.value, each.stderr)
    return found


def _bits_per_byte(estimates: Mapping[MetricKey, Estimate]) -> dict[TextKey, float]:
    bits = {key: each.value for key, each in estimates.items() if key[1] == manifest.BITS}
    return {(domain, data): value for (domain, _, data), value in bits.items()}


def _is_whole(card: Manifest) -> bool:
    uncut = all(card.recipe.get(part) == "all" for part in ("layers", "vocab", "ffn"))
    return uncut and card.attention == "keep" and card.healing is None
