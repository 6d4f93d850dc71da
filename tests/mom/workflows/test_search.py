"""The table of a search says which candidates are healed, and why one is not."""

from typing import Any

import pytest

from mom.workflows.search import show_search
from slices.estimate import Estimate
from slices.search.candidates import Structure
from slices.search.frontier import Candidate


def candidate(layers: str, bits: float, **fields: Any) -> dict[str, Any]:
    value = Estimate(bits, 0.01)
    made = Candidate(
        structure=Structure(layers, "all", "all"),
        type="Q8_0",
        embedding_type=None,
        bytes=1_000_000,
        bits_per_byte=value,
        bits_over_parent=value,
        kl=value,
        lost_mass=None,
        **fields,
    )
    return {"label": made.label, **made.to_json()}


def test_the_table_tells_healed_from_unhealed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    healed = candidate("drop:3", 1.0, heal_steps=50)
    unhealed = candidate("drop:4", 2.0, note="50 steps of healing made it no better")
    verdict = {"verdict": "unknown", "reason": "not compared", "sentence": "not compared"}
    show_search(
        {
            "budget": 2_000_000, "heal_steps": 50, "gguf": "x.gguf", "gguf_bytes": 1_000_000,
            "chosen": healed["label"], "candidates": [healed, unhealed], "verdict": verdict,
            "skipped": [{"label": "drop:5, healed 50 steps", "bytes": 5, "reason": "healing may take 9 GB"}],
            "frontier": [{"label": healed["label"]}],
        }
    )  # fmt: skip
    shown = " ".join(capsys.readouterr().out.split())
    for part in (
        "a budget of 2.0 MB, 50 steps of healing",
        "layers drop:3: Q8_0, healed 50 steps",
        "dominated; 50 steps of healing made it no better",
        "healing may take 9 GB",
    ):
        assert part in shown
