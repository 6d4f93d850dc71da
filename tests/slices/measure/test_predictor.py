"""The published predictor, held against its own table, and its record against what is known."""

import json
from pathlib import Path

import pytest

from slices.architecture.anatomy import read_anatomy
from slices.errors import BadConfig
from slices.measure.predictor import (
    PASSES,
    Ratio,
    advise,
    advise_layers,
    agreed,
    judge,
    passes,
    sentence,
    verdict_against,
)
from slices.measure.track_record import summary, track_record
from tests.picos import write_shape


@pytest.mark.parametrize(
    ("ratio", "sliding", "expected"),
    [
        (2.67, False, ("safe", 0.90)),
        (2.999, True, ("safe", 0.90)),
        (3.0, True, ("danger", 0.95)),
        (4.0, True, ("danger", 0.95)),
        (18944 / 3584, False, ("danger", 0.80)),
        (5.5, False, ("danger", 0.80)),
        (5.501, True, ("safe", 0.85)),
        (8.0, False, ("safe", 0.85)),
    ],
)
def test_the_published_zones(ratio: float, sliding: bool, expected: tuple[str, float]) -> None:
    assert judge(ratio, sliding) == expected


def test_types_follow_the_verdict() -> None:
    safe, danger = advise_layers([2.67] * 30, 0.0), advise_layers([4.0] * 42, 35 / 42)
    assert (safe.verdict, safe.type, safe.fallback, safe.depth) == ("safe", "Q2_K", "Q3_K", 30)
    assert (danger.verdict, danger.type, danger.fallback) == ("danger", "Q3_K", "Q4_K_M")
    assert danger.swa_share == pytest.approx(0.8333, abs=1e-4)


def test_the_worst_group_decides(tmp_path: Path) -> None:
    """E2B's FFN is twice as wide on the layers that share K/V: each group has a verdict."""
    config = json.loads((write_shape(tmp_path, "e2b") / "config.json").read_text())
    config |= {"hidden_size": 16}
    advice = advise(read_anatomy(config))
    assert [(g.ratio, g.layers, g.verdict) for g in advice.groups] == [(4.0, 10, "danger"), (8.0, 5, "safe")]
    assert [g.share for g in advice.groups] == [0.5, 0.5]
    assert (advice.verdict, advice.confidence) == ("danger", 0.95)
    both_safe = advise_layers([2.0, 8.0], 0.0)
    assert (both_safe.verdict, both_safe.confidence) == ("safe", 0.85)


@pytest.mark.parametrize("ratios", [[], [4.0, 0.0], [-1.0]])
def test_no_ratio_is_refused(ratios: list[float]) -> None:
    with pytest.raises(ValueError, match="positive FFN ratio"):
        advise_layers(ratios, 0.0)


SAFE, DANGER = advise_layers([2.0], 0.0), advise_layers([4.0], 0.5)


@pytest.mark.parametrize(
    ("measured", "safe_agrees"),
    [
        ({"Q2_K": Ratio(1.2)}, True),
        ({"Q2_K": Ratio(PASSES)}, True),
        ({"Q2_K": Ratio(9.0, 0.5)}, False),
        ({"Q2_K": Ratio(1.4, 0.06)}, None),  # within two errors of the limit
        ({"Q2_K": Ratio(3666.0, 2695.0)}, False),  # errors are those of the logarithm
        ({"Q2_K": Ratio(0.2, 0.02)}, False),  # surer, not better
        ({"Q2_K": Ratio(0.7, 0.05)}, None),
        ({"Q4_K_M": Ratio(1.01)}, None),
        ({"Q3_K_M": Ratio(130.0)}, False),  # fewer bits than what failed
        ({"Q3_K_S": Ratio(1.1)}, None),
        ({}, None),
    ],
)
def test_agreement(measured: dict[str, Ratio], safe_agrees: bool | None) -> None:
    assert agreed(SAFE, measured) is safe_agrees
    assert agreed(DANGER, measured) is (None if safe_agrees is None else not safe_agrees)


def test_q3_k_is_the_medium_mix_where_both_were_measured() -> None:
    measured = {"Q3_K_S": Ratio(9.0), "Q3_K_M": Ratio(1.1)}
    assert passes(measured, "Q3_K") is True
    assert passes({"Q3_K_S": Ratio(9.0)}, "Q3_K") is False


def test_sentences() -> None:
    assert sentence(advise_layers([4.0] * 15 + [8.0] * 20, 0.8)) == (
        "FFN ratio 4 and 8, 80% of 35 layers sliding: the published predictor says danger "
        "(confidence 0.95), take Q3_K, else Q4_K_M"
    )
    said = verdict_against(DANGER, {"Q2_K": Ratio(1.25, 0.01), "Q3_K_M": Ratio(1.08, 0.01)})
    assert said.startswith("the measurement disagreed ('danger' means that Q2_K fails at 1.5x): ")
    assert "Q2_K passes (1.25 ± 0.01x the perplexity)" in said
    assert said.endswith("Q4_K_M not measured")
    assert "did not decide" in verdict_against(SAFE, {})


def test_the_published_record(tmp_path: Path) -> None:
    """Qwen2.5-7B passed against the verdict; E4B's base failed, and so did both types advised for it."""
    qwen, e4b = track_record(tmp_path / "absent.json")
    assert (qwen.advice.verdict, qwen.right, qwen.type_passed) == ("danger", False, None)
    assert (e4b.advice.verdict, e4b.right, e4b.type_passed) == ("danger", True, False)
    assert summary((qwen, e4b)) == "right in 1 of 2 known cases; the type it advised passed in 0 of 1"


def test_our_own_cases_are_read_from_a_file(tmp_path: Path) -> None:
    case = {
        "model": "pico", "ffn_ratios": [2.0], "swa_share": 0.0, "recipe": "kept",
        "perplexity_ratio": {"Q2_K": {"value": 1.1, "stderr": 0.02, "n": 3}},
    }  # fmt: skip
    file = tmp_path / "experiments.json"
    file.write_text(json.dumps({"date": "today", "cases": [case]}))
    *_, ours = track_record(file)
    assert (ours.case.model, ours.right, ours.type_passed) == ("pico", True, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Invalid JSON"),
        ('{"cases": 3}', "cases: "),
        ('{"cases": [{"model": "x", "ffn_ratios": [], "swa_share": 0}]}', "cases.0.ffn_ratios: "),
        ('{"cases": [{"model": "x", "ffn_ratios": [0], "swa_share": 0}]}', "cases.0.ffn_ratios.0: "),
        ('{"cases": [{"model": "x", "ffn_ratios": [3], "swa_share": 2}]}', "cases.0.swa_share: "),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "experiments.json"
    file.write_text(text)
    with pytest.raises(BadConfig, match=f"experiments.json: .*{message}"):
        track_record(file)
