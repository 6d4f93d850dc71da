"""What `--attention sliding` makes of a parent's layers, and which combinations are refused."""

from pathlib import Path

import pytest

from slices import manifest
from slices.architecture.anatomy import Anatomy, read_anatomy
from slices.architecture.attention import Attention, RopeTheta
from slices.architecture.attention_change import reduces_attention
from slices.architecture.kv_cache import kv_cache_bytes
from slices.architecture.window import resolve_rope_theta
from slices.checkpoint import open_checkpoint
from slices.cut.pipeline import cut, plan_cut
from slices.cut.request import SliceRequest
from slices.errors import InvalidCut
from slices.heal.hidden_states import matching_layers
from tests.picos import write_shape


def request(parent: Path, target: Path, theta: RopeTheta | None = None, **changes: object) -> SliceRequest:
    return SliceRequest(
        domain="law",
        layers="all",
        model=str(parent),
        output=target,
        attention=Attention.SLIDING,
        rope_theta=theta,
        **changes,  # type: ignore[arg-type]
    )


def anatomy(folder: Path) -> Anatomy:
    return read_anatomy(open_checkpoint(folder).config)


def test_a_gemma3_becomes_a_stock_model_of_sliding_layers(tmp_path: Path) -> None:
    parent = write_shape(tmp_path / "parent", "gemma3")
    made = cut(request(parent, tmp_path / "slice"))
    own = anatomy(tmp_path / "slice")
    assert (own.model_type, own.full, own.sliding) == ("gemma3_text", [], list(range(12)))
    assert (made.attention, made.recipe["windowed_layers"]) == ("sliding", [5, 11])
    assert manifest.read(tmp_path / "slice").recipe["rope_theta"] == "local"
    assert "full-attention layers 5, 11 are sliding layers" in made.notes[-1]
    assert reduces_attention(own, anatomy(parent))


@pytest.mark.parametrize("theta", RopeTheta)
def test_no_kv_is_kept_beyond_the_window(theta: RopeTheta, tmp_path: Path) -> None:
    parent = write_shape(tmp_path / "parent", "gemma3")
    _, plan, _ = plan_cut(request(parent, tmp_path / "slice", theta))
    whole = kv_cache_bytes(anatomy(parent))
    assert plan.kv_cache.per_token == whole.per_token == 12 * 2 * 8 * 2 * 2
    assert (plan.kv_cache.beyond_window, whole.beyond_window) == (0, 2 * 2 * 8 * 2 * 2)


def test_a_gemma4_keeps_its_theta_and_its_heads(tmp_path: Path) -> None:
    parent = write_shape(tmp_path / "parent", "e4b")
    made = cut(request(parent, tmp_path / "slice"))
    own = anatomy(tmp_path / "slice")
    assert own.model_type == "gemma4_slice"
    assert own.windowed == own.full == anatomy(parent).full
    assert made.recipe["rope_theta"] == "global"
    assert kv_cache_bytes(own).beyond_window == 0 < kv_cache_bytes(anatomy(parent)).beyond_window


def test_a_slice_without_full_layers_is_a_stock_one(tmp_path: Path) -> None:
    parent = write_shape(tmp_path / "parent", "gemma3")
    _, plan, _ = plan_cut(
        SliceRequest(
            domain="law",
            layers="swa",
            model=str(parent),
            output=tmp_path / "slice",
            attention=Attention.SLIDING,
            rope_theta=RopeTheta.GLOBAL,
        )
    )
    assert plan.config["model_type"] == "gemma3_text"
    assert plan.windowed_layers == []


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    gemma3, gemma4 = (write_shape(tmp_path / shape, shape) for shape in ("gemma3", "e4b"))
    with pytest.raises(InvalidCut, match="--attention sliding with it"):
        resolve_rope_theta(anatomy(gemma3), Attention.KEEP, RopeTheta.LOCAL)
    with pytest.raises(InvalidCut, match="expected global"):
        plan_cut(request(gemma4, tmp_path / "slice", RopeTheta.LOCAL))
    with pytest.raises(InvalidCut, match=r"layers \[5, 11, 17\]"):
        plan_cut(request(gemma4, tmp_path / "slice", portable=True))


def test_hidden_states_are_matched_behind_the_first_windowed_layer(tmp_path: Path) -> None:
    parent = anatomy(write_shape(tmp_path / "parent", "gemma3"))
    everything = list(range(12))
    assert matching_layers(parent, everything, False) == ([], [])
    assert matching_layers(parent, everything, False, [5, 11]) == ([*range(6, 12)], [*range(6, 12)])
    assert matching_layers(parent, everything[1:], False, [5])[1] == everything[1:]
