"""Healing tiny models: every method lowers the KL, nothing else changes, nothing worse is written."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from slices import manifest
from slices.checkpoint import open_checkpoint
from slices.errors import BadCheckpoint, BadConfig, Exists, RunFailed
from slices.heal import memory_bound
from slices.heal.heal import HealResult, heal
from slices.heal.request import HealRequest
from slices.heal.settings import HealConfig, HealMethod, LostTokens
from slices.measure.divergence import Divergence, measure_against
from slices.measure.heldout import cut_heldout
from slices.measure.token_map import token_map
from slices.runtimes.torch_runtime import TorchRuntime
from tests.picos import load
from tests.slices.heal_fixtures import parent_gemma3, parent_gemma4, sentences, slice_of

SHORT = HealConfig(
    steps=40,
    row_tokens=32,
    batch=4,
    eval_every=20,
    hard_label_weight=0.0,
    lr=3e-3,
    precision="float32",
    warmup_steps=4,
)
GAINS = ("norm.weight", "layernorm.weight", "layer_scalar")


def ordered(slice_: Path, target: Path, config: HealConfig = SHORT) -> HealRequest:
    return HealRequest(slice=slice_, target=target, text=sentences(), config=config, threads=1)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parent_gemma4(tmp_path_factory.mktemp("heal") / "parent")


@pytest.fixture
def swa(parent: Path, tmp_path: Path) -> Path:
    return slice_of(parent, tmp_path / "slices" / "swa", "swa")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        entry.name: entry.file.read_bytes()[entry.start : entry.start + entry.nbytes]
        for entry in open_checkpoint(folder).entries
    }


def changed(before: Path, after: Path) -> set[str]:
    old, new = bytes_of(before), bytes_of(after)
    assert old.keys() == new.keys()
    return {name for name in old if old[name] != new[name]}


@pytest.mark.parametrize("method", list(HealMethod))
def test_every_method_brings_a_swa_slice_nearer_to_its_parent(
    method: HealMethod, swa: Path, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the run's own evaluation, and by the code of `mom eval` on the written files."""
    monkeypatch.setattr("slices.measure.sampled_distribution.TOP", 100_000)  # every token: an exact KL
    healed = heal(ordered(swa, tmp_path / "healed", replace(SHORT, method=method, lr=1e-2)))
    gained = healed.before.kl.value - healed.after.kl.value
    assert gained > 3 * (healed.before.kl.stderr + healed.after.kl.stderr)
    assert healed.after.kl.value == pytest.approx(_kl(tmp_path / "healed", parent), abs=1e-4)
    names = changed(swa, tmp_path / "healed")
    assert any(name.endswith("layer_scalar") for name in names) == (method != HealMethod.LORA)
    assert not any("embed_tokens" in name for name in names)
    assert all(name.endswith(GAINS) for name in names) == (method == HealMethod.NORMS)
    load(tmp_path / "healed")


def _kl(folder: Path, parent: Path) -> float:
    return _divergence(folder, parent).kl.value


def _divergence(folder: Path, parent: Path) -> Divergence:
    text = cut_heldout(sentences().verdict().documents, 16_000)
    ours, theirs = TorchRuntime(folder, threads=1), TorchRuntime(parent, threads=1)
    return measure_against("healed", ours, theirs, token_map(folder, parent), text)


def test_a_cut_vocabulary_learns_its_spellings_from_the_parent(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the text's own tokens. The KL that is lowered is that of `mom eval` by first pieces."""
    monkeypatch.setattr("slices.measure.sampled_distribution.TOP", 100_000)  # every token: an exact KL
    slice_ = slice_of(parent, tmp_path / "slices" / "words", "all", "400")
    config = replace(SHORT, lr=1e-4, hidden_state_weight=0.0, lost_tokens=LostTokens.FIRST_PIECE)
    healed = heal(ordered(slice_, tmp_path / "healed", config))
    assert healed.before.kl.value > 0.1
    assert healed.after.kl.value < 0.99 * healed.before.kl.value
    found = _divergence(tmp_path / "healed", parent)
    assert healed.after.kl.value == pytest.approx(found.kl_first_piece.value, abs=1e-4)
    assert healed.manifest.healing is not None
    assert healed.manifest.healing["settings"]["lost_tokens"] == "first-piece"


def test_a_cut_vocabulary_learns_from_the_text(parent: Path, tmp_path: Path) -> None:
    """Of the same layers, so that only the cross-entropy to the text has a gradient."""
    slice_ = slice_of(parent, tmp_path / "slices" / "words", "all", "400")
    healed = heal(ordered(slice_, tmp_path / "healed", replace(SHORT, hard_label_weight=0.5)))
    assert healed.before.kl.value == pytest.approx(0, abs=1e-4)
    assert healed.after.bits_per_byte.value < 0.97 * healed.before.bits_per_byte.value


def test_gemma3_heals_too(tmp_path: Path) -> None:
    slice_ = slice_of(parent_gemma3(tmp_path / "parent"), tmp_path / "slices" / "s", "swa")
    healed = heal(ordered(slice_, tmp_path / "healed", replace(SHORT, row_tokens=128, batch=2)))
    assert healed.after.kl.value < 0.9 * healed.before.kl.value


def test_slice_json_says_what_was_done(swa: Path, tmp_path: Path) -> None:
    healed = heal(ordered(swa, tmp_path / "healed"))
    made = manifest.read(tmp_path / "healed")
    assert made.name == "healed"
    assert (made.layers, made.parent, made.bytes) == (lambda m: (m.layers, m.parent, m.bytes))(
        manifest.read(swa)
    )
    assert made.healing is not None
    assert made.healing["settings"] == {
        **SHORT.with_defaults(healed.before.kl.value).to_json(),
        "compiled": False,
    }
    assert made.healing["tokens"] == 40 * 4 * 32
    assert [point["step"] for point in made.healing["curve"]] == [0, 20, 40]
    assert made.healing["after"] == json.loads(json.dumps(healed.after.to_json()))


def test_accumulated_batches_are_one_big_batch(swa: Path, tmp_path: Path) -> None:
    few = replace(SHORT, steps=3, eval_every=3)
    heal(ordered(swa, tmp_path / "whole", few))
    heal(ordered(swa, tmp_path / "parts", replace(few, batch=2, grad_accum=2)))
    whole, parts = (
        load_file(tmp_path / "whole/model.safetensors"),
        load_file(tmp_path / "parts/model.safetensors"),
    )
    for name, weight in whole.items():
        assert torch.allclose(weight.float(), parts[name].float(), rtol=2e-2, atol=2e-3), name


def test_nothing_worse_is_written(parent: Path, tmp_path: Path) -> None:
    """A slice that is its parent can only get worse."""
    same = slice_of(parent, tmp_path / "slices" / "same", "all")
    with pytest.raises(RunFailed, match="no better slice on held-out text, so nothing is written"):
        heal(ordered(same, tmp_path / "healed"))
    assert not (tmp_path / "healed").exists()


@dataclass(frozen=True)
class Explodes(HealConfig):
    """A run whose learning rate becomes absurd."""

    at: int = 0

    def lr_at(self, step: int) -> float:
        return 1e38 if step >= self.at else super().lr_at(step)


def exploding(swa: Path, tmp_path: Path, at: int) -> HealResult:
    fields = {name: getattr(SHORT, name) for name in SHORT.__dataclass_fields__}
    return heal(ordered(swa, tmp_path / "healed", Explodes(**fields, at=at)))


def test_nan_stops_with_the_step_and_keeps_the_last_good_weights(swa: Path, tmp_path: Path) -> None:
    healed = exploding(swa, tmp_path, at=25)
    assert healed.stopped is not None
    assert healed.stopped.failed
    assert "step 27: the loss is nan" in healed.stopped.reason
    assert healed.after.step == 20
    assert healed.after.kl.value < healed.before.kl.value
    assert all(
        torch.isfinite(weight).all() for weight in load_file(tmp_path / "healed/model.safetensors").values()
    )


@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_the_last_steps_may_train_on_labels_only(fraction: float, swa: Path, tmp_path: Path) -> None:
    config = replace(SHORT, label_only_fraction=fraction, hard_label_weight=0.9)
    assert [config.is_label_only(step) for step in (0, config.steps // 2, config.steps - 1)] == [
        fraction == 1.0, True, True,
    ]  # fmt: skip
    healed = heal(ordered(swa, tmp_path / "healed", config))
    assert healed.after.bits_per_byte.value < healed.before.bits_per_byte.value
    guided = heal(ordered(swa, tmp_path / "guided", replace(config, label_only_fraction=0.0)))
    assert healed.after.kl.value != guided.after.kl.value


def test_nan_before_anything_is_better_writes_nothing(swa: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"step 2: the loss is nan.*nothing is written"):
        exploding(swa, tmp_path, at=0)
    assert not (tmp_path / "healed").exists()


def test_a_run_without_improvement_stops_early(swa: Path, tmp_path: Path) -> None:
    lively = replace(SHORT, steps=400, eval_every=5, patience=2, lr=3e-2, seed=3)
    healed = heal(ordered(swa, tmp_path / "healed", lively))
    assert healed.stopped is not None
    assert not healed.stopped.failed
    assert healed.run.step == healed.after.step + 10 < 400


def test_another_model_is_no_parent(swa: Path, tmp_path: Path, parent: Path) -> None:
    made = manifest.read(swa)
    other = made.model_copy(update={"parent": made.parent.model_copy(update={"headers_sha256": "0" * 64})})
    manifest.write(swa, other)
    with pytest.raises(BadCheckpoint, match=r"is not the model that .* was cut from"):
        heal(ordered(swa, tmp_path / "healed"))


def test_an_existing_target_stays(swa: Path, tmp_path: Path) -> None:
    (tmp_path / "healed").mkdir()
    with pytest.raises(Exists):
        heal(ordered(swa, tmp_path / "healed"))


def test_too_little_memory_is_said_before_the_start(
    swa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_bound, "available_memory", lambda: 500_000_000)
    with pytest.raises(RunFailed, match=r"healing may take \d\.\d GB and 0\.5 GB are available"):
        heal(ordered(swa, tmp_path / "healed"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"method": "magic"}, "--method magic"), ({"steps": 0}, "--steps 0"),
        ({"hard_label_weight": 1.5}, "--hard-label-weight 1.5"), ({"grad_accum": 0}, "--grad-accum 0"),
        ({"lr": -1.0}, "--lr -1.0"), ({"row_tokens": 1}, "--row-tokens 1"),
        ({"lr": float("nan")}, "--lr nan"), ({"label_only_fraction": 1.5}, "--label-only-fraction 1.5"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(BadConfig, match=named):
        replace(SHORT, **change)  # type: ignore[arg-type]


@pytest.mark.gpu
def test_a_gpu_heals_as_a_processor_does(swa: Path, tmp_path: Path) -> None:
    on_gpu = replace(ordered(swa, tmp_path / "gpu"), device="cuda")
    there, here = heal(on_gpu), heal(ordered(swa, tmp_path / "cpu"))
    assert there.after.kl.value == pytest.approx(here.after.kl.value, rel=0.05)


@pytest.mark.parametrize("method", list(HealMethod))
def test_products_in_bf16_heal_as_well(method: HealMethod, swa: Path, parent: Path, tmp_path: Path) -> None:
    """Products are bf16, but trained weights are float32, so small updates are not lost."""
    coarse = replace(SHORT, method=method, lr=1e-2, precision="bfloat16")
    healed = heal(ordered(swa, tmp_path / "healed", coarse))
    assert healed.after.kl.value < 0.95 * healed.before.kl.value
    assert _kl(tmp_path / "healed", parent) == pytest.approx(healed.after.kl.value, rel=0.05)
