"""Compiled layers teach what plain ones do, are asked for by long runs alone, and resume to the same bits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from slices.heal import compiled
from slices.heal import heal as runs
from slices.heal.heal import Order, heal
from slices.heal.loop import News
from slices.heal.settings import Healing
from tests.slices.heal_fixtures import parent_gemma3, parent_gemma4, sentences, slice_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # in inductor
SHORT = Healing(steps=30, context=128, batch=2, every=15, hard=0.0, rate=3e-3, precision="float32", warmup=4)


def ordered(slice_: Path, target: Path, **changes: object) -> Order:
    return Order(slice_, target, sentences(), replace(SHORT, **changes), threads=1)  # type: ignore[arg-type]


def test_long_runs_alone_are_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is nothing to compile with, not even they."""
    slice_ = slice_of(parent_gemma4(tmp_path / "parent"), tmp_path / "slices" / "s", "swa")
    asked = list[tuple[int, int]]()
    monkeypatch.setattr(runs, "compile_layers", lambda model, rows, context: asked.append((rows, context)))

    def settled(name: str) -> object:
        made = heal(ordered(slice_, tmp_path / name)).manifest.healing
        assert made is not None
        return made["settings"]["compiled"]

    assert settled("short") is False
    monkeypatch.setattr(runs, "WORTH", SHORT.tokens)
    assert settled("long") is True
    assert asked == [(2, 128)] * 2  # slice and parent
    monkeypatch.setenv("PATH", "")
    assert settled("bare") is False


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert not compiled.can_compile("cpu")
    (tmp_path / "g++").touch(0o755)
    assert compiled.can_compile("cpu")


@pytest.mark.slow
@pytest.mark.parametrize(("method", "rate"), [("full", 3e-3), ("lora", 1e-2)])
@pytest.mark.parametrize("parent", [parent_gemma3, parent_gemma4])
def test_compiled_layers_teach_the_same(
    parent: Callable[[Path], Path], method: str, rate: float, tmp_path: Path
) -> None:
    slice_ = slice_of(parent(tmp_path / "parent"), tmp_path / "slices" / "s", "swa")
    plain = heal(ordered(slice_, tmp_path / "plain", method=method, rate=rate, compiled=False))
    counters.clear()
    fast = heal(ordered(slice_, tmp_path / "fast", method=method, rate=rate, compiled=True))
    assert counters["frames"]["ok"] == counters["frames"]["total"] > 0
    assert plain.after.kl.value < 0.9 * plain.before.kl.value
    assert fast.after.kl.value == pytest.approx(plain.after.kl.value, rel=0.01)


@pytest.mark.slow
def test_a_killed_compiled_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(news: News) -> None:
        if news.step == 20:
            raise Killed

    slice_ = slice_of(parent_gemma4(tmp_path / "parent"), tmp_path / "slices" / "s", "swa")
    heal(ordered(slice_, tmp_path / "whole", compiled=True))
    with pytest.raises(Killed):
        heal(ordered(slice_, tmp_path / "healed", compiled=True), kill)
    heal(ordered(slice_, tmp_path / "healed", compiled=True))
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "healed"))
    assert all(bool((whole[name] == resumed[name]).all()) for name in whole)
