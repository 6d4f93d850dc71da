"""Compiled layers train like eager ones, only long runs compile them, and they resume to the same bits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from slices.heal import compiled
from slices.heal import heal as heal_module
from slices.heal.heal import heal
from slices.heal.loop import TrainingProgress
from slices.heal.request import HealRequest
from slices.heal.settings import HealConfig, HealMethod
from tests.slices.heal_fixtures import parent_gemma3, parent_gemma4, sentences, slice_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # in inductor
SHORT = HealConfig(
    steps=30,
    row_tokens=128,
    batch=2,
    eval_every=15,
    hard_label_weight=0.0,
    lr=3e-3,
    precision="float32",
    warmup_steps=4,
)


def ordered(slice_: Path, target: Path, **changes: Any) -> HealRequest:
    return HealRequest(
        slice=slice_, target=target, text=sentences(), config=replace(SHORT, **changes), threads=1
    )


def test_only_long_runs_are_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is nothing to compile with, not even they."""
    slice_ = slice_of(parent_gemma4(tmp_path / "parent"), tmp_path / "slices" / "s", "swa")
    compiled_shapes = list[tuple[int, int]]()
    monkeypatch.setattr(
        "slices.heal.load.compile_layers",
        lambda model, rows, row_tokens: compiled_shapes.append((rows, row_tokens)),
    )

    def compiled_setting(name: str) -> object:
        made = heal(ordered(slice_, tmp_path / name)).manifest.healing
        assert made is not None
        return made["settings"]["compiled"]

    assert compiled_setting("short") is False
    monkeypatch.setattr(heal_module, "MIN_TOKENS", SHORT.tokens)
    assert compiled_setting("long") is True
    assert compiled_shapes == [(2, 128)] * 2  # slice and parent
    monkeypatch.setenv("PATH", "")
    assert compiled_setting("bare") is False


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert not compiled.can_compile("cpu")
    (tmp_path / "g++").touch(0o755)
    assert compiled.can_compile("cpu")


@pytest.mark.slow
@pytest.mark.parametrize(("method", "lr"), [(HealMethod.FULL, 3e-3), (HealMethod.LORA, 1e-2)])
@pytest.mark.parametrize("parent", [parent_gemma3, parent_gemma4])
def test_compiled_layers_train_the_same(
    parent: Callable[[Path], Path], method: HealMethod, lr: float, tmp_path: Path
) -> None:
    slice_ = slice_of(parent(tmp_path / "parent"), tmp_path / "slices" / "s", "swa")
    plain = heal(ordered(slice_, tmp_path / "plain", method=method, lr=lr, compiled=False))
    counters.clear()
    fast = heal(ordered(slice_, tmp_path / "fast", method=method, lr=lr, compiled=True))
    assert counters["frames"]["ok"] == counters["frames"]["total"] > 0
    assert plain.after.kl.value < 0.9 * plain.before.kl.value
    assert fast.after.kl.value == pytest.approx(plain.after.kl.value, rel=0.01)


@pytest.mark.slow
def test_a_killed_compiled_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(progress: TrainingProgress) -> None:
        if progress.step == 20:
            raise Killed

    slice_ = slice_of(parent_gemma4(tmp_path / "parent"), tmp_path / "slices" / "s", "swa")
    heal(ordered(slice_, tmp_path / "whole", compiled=True))
    with pytest.raises(Killed):
        heal(ordered(slice_, tmp_path / "healed", compiled=True), kill)
    heal(ordered(slice_, tmp_path / "healed", compiled=True))
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "healed"))
    assert all(bool((whole[name] == resumed[name]).all()) for name in whole)
