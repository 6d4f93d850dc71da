"""What the router reads from slice.json."""

from pathlib import Path

from router.experts import catalogue
from slices.estimate import Estimate
from slices.manifest import BITS, PARENT, SPEED
from tests.router.router_world import measured, write_slice

ALL = {"layers": "all", "vocab": "all", "ffn": "all"}


def test_slice_json_tells_the_catalogue(slices_root: Path) -> None:
    write_slice(slices_root, "poor", "law", created="2026-06-01T00:00:00+00:00", measurements=[
        measured(2.0), measured(1.0, variant=PARENT), measured(7.0, metric=SPEED, domain="", data=""),
        measured(9.0, variant="gone.gguf"),
    ])  # fmt: skip
    poor = catalogue.read().experts["poor"].measurements
    assert poor.estimates == {("law", BITS, "d"): Estimate(2.0, 0.1)}
    assert (poor.bits_per_byte, poor.parent_bits_per_byte, poor.decode_tokens_per_second) == (
        {("law", "d"): 2.0},
        {("law", "d"): 1.0},
        7.0,
    )


def test_the_latest_text_is_the_last(slices_root: Path) -> None:
    twice = [measured(2.0, data="a"), measured(3.0, data="b"), measured(1.0, data="a")]
    write_slice(slices_root, "new", "math", measurements=twice)
    found = catalogue.read().experts["new"].measurements.bits_per_byte
    assert list(found.items()) == [(("law", "b"), 3.0), (("law", "a"), 1.0)]


def test_a_whole_model_is_its_parent(slices_root: Path) -> None:
    write_slice(slices_root, "whole", "math", recipe=ALL)
    write_slice(slices_root, "healed", "physics", recipe=ALL, healing={"steps": 1})
    write_slice(slices_root, "cut", "history", recipe=ALL | {"vocab": "32768"})
    write_slice(slices_root, "windowed", "social", recipe=ALL, attention="sliding")
    served = catalogue.read().experts
    whole = {name for name, each in served.items() if each.measurements.whole}
    assert whole == {"whole"}
