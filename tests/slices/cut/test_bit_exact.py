"""Every slice is its parent with the other layers bypassed: random valid plans of every shape, to the bit."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slices.architecture.anatomy import read_anatomy
from slices.architecture.constraints import nearest_valid_layers
from slices.architecture.layer_spec import format_layers
from slices.checkpoint import open_checkpoint
from slices.cut.request import SliceRequest
from tests.picos import (
    SHAPES,
    add_dead_kv,
    bypassed,
    cut_exactly,
    difference,
    load,
    logits,
    shard,
    write_shape,
)

Parent = tuple[Path, Path, Any]  # as saved; the same in shards, with dead K/V; loaded


@pytest.fixture(scope="module")
def parent_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Parent]:
    made: dict[str, Parent] = {}

    def parent(shape: str) -> Parent:
        if shape not in made:
            whole = write_shape(tmp_path_factory.mktemp("parents") / shape, shape)
            split = whole.with_name(f"{shape}-split")
            shutil.copytree(whole, split)
            made[shape] = whole, shard(add_dead_kv(split)), load(whole)
        return made[shape]

    return parent


def assert_exact(parent: Parent, draws: random.Random, out: Path) -> None:
    whole, split, model = parent
    anatomy = read_anatomy(open_checkpoint(whole).config)
    count = len(anatomy.layers)
    drawn = sorted(draws.sample(range(count), draws.randint(1, count)))
    layers, _ = nearest_valid_layers(anatomy, drawn)
    source, portable = draws.choice((whole, split)), draws.random() < 0.5
    cut_exactly(
        SliceRequest(
            domain="biochem", layers=format_layers(layers), model=str(source), output=out, portable=portable
        )
    )
    with bypassed(model, layers):
        expected = logits(model)
    assert difference(load(out), expected) == 0.0, (layers, source.name, portable)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("shape", SHAPES)
def test_random_plans(shape: str, seed: int, parent_of: Callable[[str], Parent], tmp_path: Path) -> None:
    assert_exact(parent_of(shape), random.Random(f"{shape}{seed}"), tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 140))
@pytest.mark.parametrize("shape", SHAPES)
def test_more_random_plans(shape: str, seed: int, parent_of: Callable[[str], Parent], tmp_path: Path) -> None:
    assert_exact(parent_of(shape), random.Random(f"{shape}{seed}"), tmp_path / "out")
