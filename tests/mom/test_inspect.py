"""`mom inspect`: the predictor's advice, for configs and slices alike."""

import json
from pathlib import Path

import pytest

from mom import inspecting
from slices.cut import cut
from slices.request import Request
from tests.mom.test_cli import E4B, mom, parsed


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
    cut(Request("law", "0-2", str(pico_gemma3), name="thirds"))
    figures = inspecting.inspect("thirds")
    assert figures["layers"] == 3
    assert figures["advice"]["verdict"] == "safe"  # 64 / 32
    assert figures["advice"]["terms"] == {"depth": 3, "swa_share": 1.0}
    inspecting.show("thirds", figures)
    shown = capsys.readouterr().out
    assert "FFN ratio 2 on 3 layers" in shown
    assert "Q2_K, else Q3_K" in shown
