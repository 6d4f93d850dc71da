"""Invalid cuts are refused with the rule, the layers and the nearest valid cut; `--repair` takes that one."""

import itertools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mom.workflows import slice
from slices.architecture import constraints
from slices.architecture.anatomy import Anatomy, read_anatomy
from slices.architecture.layer_spec import format_layers, select_layers
from slices.checkpoint import open_checkpoint
from slices.cut import plan
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.cut.slice_config import slice_config
from slices.errors import InvalidCut, SliceError, Unsupported
from slices.families.table import FULL, SLIDING
from tests.picos import bypassed, cut_exactly, difference, load, logits, write_shape

E4B: dict[str, Any] = {
    "model_type": "gemma4_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 42,
    "num_attention_heads": 8, "num_key_value_heads": 2, "num_kv_shared_layers": 18,
}  # fmt: skip


def small(types: list[str], shared: int) -> Anatomy:
    return read_anatomy(
        {"model_type": "gemma4_text", "hidden_size": 8, "intermediate_size": 512,
         "num_hidden_layers": len(types), "layer_types": types, "num_kv_shared_layers": shared}
    )  # fmt: skip


def is_valid(anatomy: Anatomy, layers: tuple[int, ...]) -> bool:
    """The rule of GEMMA4.md as it stands: each sharer's donor is the last kept own-KV layer of its type."""
    kept = [anatomy.layers[i] for i in layers]
    return all(
        [own.index for own in kept if not own.shared and own.type == layer.type][-1:] == [layer.donor]
        for layer in kept
        if layer.shared
    )


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_nearest_is_nearest(data: st.DataObject) -> None:
    """Against every valid set there is: none differs in fewer layers, none in as few without adding."""
    own = data.draw(st.integers(2, 5))
    types = [SLIDING, FULL, *data.draw(st.lists(st.sampled_from([SLIDING, FULL]), min_size=4, max_size=5))]
    anatomy = small([*types[:-1], FULL], len(types) - own)
    count = len(types)
    layers = tuple(sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1))))
    found, repair = constraints.nearest_valid_layers(anatomy, layers)
    assert is_valid(anatomy, found)
    assert (repair is None) == is_valid(anatomy, layers) == (found == layers)
    subsets = itertools.chain.from_iterable(
        itertools.combinations(range(count), n) for n in range(1, count + 1)
    )
    distances = [len(set(layers) ^ set(other)) for other in subsets if is_valid(anatomy, other)]
    assert len(set(layers) ^ set(found)) == min(distances)
    assert set(found) >= set(layers)


@settings(max_examples=100, deadline=None)
@given(layers=st.sets(st.integers(0, 41), min_size=1))
def test_specs_are_spelled_as_they_are_read(layers: set[int]) -> None:
    assert select_layers(format_layers(sorted(layers)), [SLIDING] * 42) == tuple(sorted(layers))


@pytest.mark.parametrize(
    ("spec", "message", "nearest"),
    [
        ("0-21,23-25", "layers 24, 25 share the K/V of layer 22.*they would read layer 21's", "0-25"),
        ("0-5,29", "layer 29 shares the K/V of layer 23.*they would read layer 5's", "0-5,23,29"),
        ("24-41", "no sliding_attention K/V would be left; layers 29, 35, 41 share .* 23", "22-41"),
        ("41", "no full_attention K/V would be left", "23,41"),
    ],
)
def test_dropped_donors_are_refused(spec: str, message: str, nearest: str) -> None:
    anatomy = read_anatomy(E4B)
    layers = select_layers(spec, [layer.type for layer in anatomy.layers])
    with pytest.raises(InvalidCut, match=f"rule of donors: .*{message}") as refused:
        constraints.check_layers(anatomy, layers)
    offered = re.search(r"--layers (\S+) ", str(refused.value))
    assert offered is not None
    assert offered[1] == nearest
    constraints.check_layers(anatomy, select_layers(offered[1], [layer.type for layer in anatomy.layers]))


def test_repair_takes_the_nearest_and_says_so(tmp_path: Path) -> None:
    parent = write_shape(tmp_path / "parent", "e4b")
    request = SliceRequest(
        domain="biochem", layers="0-9,12-17", model=str(parent), output=tmp_path / "out", repair=True
    )
    planned = slice.dry_run(request)
    made = cut_exactly(request)
    assert made.layers == planned["layers"] == list(range(18))
    assert made.recipe["repair"] == planned["repair"] == {"added": [10, 11], "dropped": []}
    assert made.notes[0] == "the requested cut is invalid; the nearest valid one adds 10-11"
    assert planned["notes"][0] == made.notes[0]


def test_repair_leaves_a_legal_cut_alone(tmp_path: Path) -> None:
    parent = write_shape(tmp_path / "parent", "e4b")
    made = cut_exactly(
        SliceRequest(domain="biochem", layers="0-5", model=str(parent), output=tmp_path / "out", repair=True)
    )
    assert made.layers == [0, 1, 2, 3, 4, 5]
    assert made.recipe["repair"] is None


def test_transformers_loads_a_dropped_donor_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trap itself: without our two guards the slice loads, and answers something else."""
    parent = write_shape(tmp_path / "parent", "e4b")
    request = SliceRequest(domain="biochem", layers="0-9,11-17", model=str(parent), output=tmp_path / "out")
    with pytest.raises(InvalidCut, match="rule of donors"):
        cut(request)
    monkeypatch.setattr(constraints, "check_layers", lambda *args: None)
    with pytest.raises(InvalidCut, match="would make layer 12 another layer"):
        cut(request)
    monkeypatch.setattr(constraints, "check_faithful", lambda *args: None)
    made = cut(request)
    model = load(parent)
    with bypassed(model, made.layers):
        expected = logits(model)
    assert difference(load(tmp_path / "out"), expected) > 0.01


@pytest.mark.parametrize(
    ("shape", "wrong"),
    [
        ("e4b", {"num_kv_shared_layers": 0}),
        ("e4b", {"num_kv_shared_layers": 5}),
        ("e4b", {"layer_types": [SLIDING] * 16 + [FULL]}),
        ("e4b", {"per_layer_config": {str(i): {"head_dim": 16} for i in (5, 11, 17)}}),  # not renumbered
        ("e2b", {"use_double_wide_mlp": False}),
        ("e2b", {"intermediate_size": 32}),
        ("31b", {"attention_k_eq_v": False}),
        ("31b", {"num_key_value_heads": 1}),
        ("31b", {"per_layer_config": {}}),
    ],
)  # fmt: skip
def test_a_config_that_says_something_else_is_caught(
    shape: str, wrong: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard behind the rules: the slice's config is read back and held against the parent's layers."""
    parent = write_shape(tmp_path / "parent", shape)
    honest: Callable[..., dict[str, Any]] = slice_config
    monkeypatch.setattr("slices.cut.plan.slice_config", lambda *args: honest(*args) | dict(wrong))
    with pytest.raises(SliceError, match=r"would make layer \d+ another layer|shares K/V"):
        cut(SliceRequest(domain="biochem", layers="drop:1", model=str(parent), output=tmp_path / "out"))


def test_config_follows_the_kept_layers(tmp_path: Path) -> None:
    parent = write_shape(tmp_path / "parent", "e2b")
    made = plan.make_plan(*_opened(parent), plan.Selection((1, 4, 7, 8, 9, 10, 14))).config
    assert made["num_kv_shared_layers"] == 2
    assert made["layer_types"] == [SLIDING, FULL, SLIDING, SLIDING, FULL, SLIDING, FULL]
    assert made["per_layer_config"].keys() == {"1", "4", "6"}
    assert all(override["head_dim"] == 16 for override in made["per_layer_config"].values())
    widths = [layer.ffn for layer in read_anatomy(made).layers]
    assert widths == [64] * 5 + [128] * 2  # the double-wide boundary stays where the sharing begins


def _opened(folder: Path) -> tuple[Any, Anatomy]:
    checkpoint = open_checkpoint(folder)
    return checkpoint, read_anatomy(checkpoint.config)


@pytest.mark.parametrize(
    ("width", "nearest"),
    [
        ("5000", "4864 or 5120"),
        ("257", "256 or 512"),
        ("10241", "10240"),
        ("0", "256 or 512"),
        ("1", "256 or 512"),
    ],
)
def test_ffn_fills_whole_blocks(width: str, nearest: str) -> None:
    with pytest.raises(InvalidCut, match=f"multiple of 256 up to 10240; nearest: {nearest}$"):
        constraints.ffn_width(read_anatomy(E4B), width)


@pytest.mark.parametrize(("parent", "width"), [(10240, 5120), (2112, 1056), (100, 7), (10240, 256)])
def test_ffn_follows_the_parents_blocks(parent: int, width: int) -> None:
    """26B-A4B's dense FFN of 2112 is no multiple of 256 itself: its slices keep whole blocks of 32."""
    anatomy = read_anatomy(E4B | {"intermediate_size": parent})
    assert constraints.ffn_width(anatomy, str(width)) == width
    assert constraints.ffn_width(anatomy, str(parent)) is None
    assert constraints.ffn_width(anatomy, "all") is None


@pytest.mark.parametrize("width", ["half", "-256", "²56", "1" * 30, "256.0", ""])
def test_ffn_is_a_number(width: str) -> None:
    with pytest.raises(InvalidCut, match="expected all, or a number of neurons that is a multiple of 256"):
        constraints.ffn_width(read_anatomy(E4B), width)


def test_special_tokens_stay() -> None:
    anatomy = small([SLIDING, FULL], 0)
    constraints.check_rows(anatomy, np.array([0, 1, 2, 500]))
    with pytest.raises(InvalidCut, match="special tokens: the config refers to token 1"):
        constraints.check_rows(anatomy, np.array([0, 2, 500]))
    listed = read_anatomy(
        {"model_type": "gemma4", "text_config": dict(anatomy.config), "eos_token_id": [1, 106]}
    )
    with pytest.raises(InvalidCut, match="token 106"):
        constraints.check_rows(listed, np.array([0, 1, 2]))


@pytest.mark.parametrize("rows", [[], [2, 1, 0], [0, 1, 2, 2], [-1, 0, 1, 2], [0, 1, 2, 262144]])
def test_rows_ascend_and_exist(rows: list[int]) -> None:
    with pytest.raises(InvalidCut, match="rows to keep must ascend"):
        constraints.check_rows(small([SLIDING, FULL], 0), np.array(rows, dtype=np.int64))


def test_two_vocabularies_stay_whole() -> None:
    anatomy = read_anatomy({**small([SLIDING, FULL], 0).config, "vocab_size_per_layer_input": 1000})
    with pytest.raises(Unsupported, match="262144 rows and the per-layer embeddings 1000"):
        constraints.check_rows(anatomy, np.array([0, 1, 2]))


@pytest.mark.parametrize(
    ("spec", "match_"),
    [("5-3", "runs backwards; expected 3-5"), ("٣", "no layer"), ("drop:", "no layer"), ("3-", "no layer"),
     ("99999", "no layer"), ("1,,2", "no layer"), ("SWA", "no layer"), ("0-42", "outside .* 0-41")],
)  # fmt: skip
def test_specs_that_say_nothing(spec: str, match_: str) -> None:
    with pytest.raises(InvalidCut, match=match_):
        select_layers(spec, [SLIDING] * 42)
