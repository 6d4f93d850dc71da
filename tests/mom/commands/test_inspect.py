"""`mom inspect`: the predictor's advice, for configs and slices alike."""

import json
from pathlib import Path
from typing import Any

import pytest

from mom.workflows import inspect
from slices import manifest
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.errors import BadConfig
from tests.mom.line import mom, parsed
from tests.mom.test_cli import E4B


def test_the_advice_on_a_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(E4B))
    advice = parsed("inspect", str(tmp_path / "config.json"), "--json")["advice"]
    assert (advice["verdict"], advice["confidence"]) == ("danger", 0.95)
    assert (advice["type"], advice["fallback"]) == ("Q3_K", "Q4_K_M")
    assert advice["terms"] == {"depth": 42, "swa_share": 0.8333}
    assert advice["thresholds"]["danger_from"] == 3.0
    [group] = advice["groups"]
    assert (group["ratio"], group["layers"], group["share"]) == (4.0, 42, 1.0)
    known = {case["model"]: case["right"] for case in advice["track_record"]}
    assert known["Qwen2.5-7B"] is False
    table = mom("inspect", str(tmp_path / "config.json")).stdout
    assert "danger (0.95)" in table
    assert "depth 42, 83 % sliding" in table


def test_a_slice_by_its_name(pico_gemma3: Path, mom_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut(SliceRequest(domain="law", layers="0-2", model=str(pico_gemma3), name="thirds"))
    figures = inspect.inspect("thirds")
    assert figures["layers"] == 3
    assert figures["advice"]["verdict"] == "safe"  # 64 / 32
    assert figures["advice"]["terms"] == {"depth": 3, "swa_share": 1.0}
    inspect.show("thirds", figures)
    shown = capsys.readouterr().out
    assert "FFN ratio 2 on 3 layers" in shown
    assert "Q2_K, else Q3_K" in shown


def trial(kind: str, ratio: float) -> dict[str, Any]:
    """As `slices.measure.quant_trials` records one."""
    return {"type": kind, "bytes": 1, "perplexity_ratio": {"value": ratio, "stderr": 0.01}}


def test_a_recorded_ladder_is_held_against_the_advice(
    pico_gemma3: Path, mom_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Advice and measurement stand side by side, also where the measurement disagrees."""
    cut(SliceRequest(domain="law", layers="all", model=str(pico_gemma3), name="sixths"))
    folder = manifest.find("sixths")
    file = {"file": "sixths-Q3_K_M.gguf", "type": "Q3_K_M", "bytes": 1, "bits_per_weight": 3.0, "sha256": ""}
    ladder = [trial("Q2_K", 7.0), trial("Q3_K_M", 1.2)]
    made = manifest.read(folder)
    with_ladder = manifest.Quantized.model_validate(file | {"ladder": ladder})
    manifest.write(folder, made.model_copy(update={"quantized": [with_ladder]}))
    figures = inspect.inspect("sixths")
    measured = figures["advice"]["measured"]["sixths-Q3_K_M.gguf"]
    assert figures["advice"]["verdict"] == "safe"
    assert measured["agreed"] is False
    assert "Q2_K fails (7 ± 0.01x the perplexity), Q3_K_M passes" in measured["sentence"]
    inspect.show("sixths", figures)
    assert "the measurement disagreed" in capsys.readouterr().out


def test_a_damaged_ladder_is_named(pico_gemma3: Path, mom_home: Path) -> None:
    cut(SliceRequest(domain="law", layers="all", model=str(pico_gemma3), name="sixths"))
    folder = manifest.find("sixths")
    file = {"file": "a.gguf", "type": "Q2_K", "bytes": 1, "bits_per_weight": 3.0, "sha256": ""}
    broken = manifest.Quantized.model_validate(file | {"ladder": [{"type": "Q2_K"}]})
    manifest.write(folder, manifest.read(folder).model_copy(update={"quantized": [broken]}))
    with pytest.raises(BadConfig, match=r"slice\.json: a trial of the ladder: perplexity_ratio: "):
        inspect.inspect("sixths")
