"""Quantization-aware healing: gradients reach W, evaluations see Q(W), the file holds W + e to the bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from slices import manifest
from slices.architecture.anatomy import read_anatomy
from slices.checkpoint import open_checkpoint
from slices.device import choose_device
from slices.errors import BadConfig
from slices.export import gguf_names
from slices.heal import memory_bound, run_state
from slices.heal.heal import fit_steps, heal
from slices.heal.loop import TrainingProgress
from slices.heal.qat import QuantizedWeights
from slices.heal.run_state import RunState
from slices.heal.settings import HealConfig, HealMethod
from slices.heal.student import Student, load_student
from slices.quant.plan import plan_quantization
from slices.quant.quantize import quantize
from slices.quant.recipe import make_recipe
from slices.quant.trained_recipe import IMATRIX_FILE, read_trained_imatrix, read_trained_recipe
from tests.slices.heal.test_heal import SHORT, bytes_of, ordered
from tests.slices.heal_fixtures import parent_gemma3, parent_gemma4, slice_of
from tests.slices.quant.test_plan import dequantized, planned

QAT = replace(
    SHORT, steps=24, eval_every=12, lr=1e-3, hidden_state_weight=0.0, hard_label_weight=0.5, qat="Q4_K_M"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slice of all layers."""
    folder = tmp_path_factory.mktemp("qat")
    return slice_of(parent_gemma3(folder / "parent"), folder / "slices" / "whole", "all")


def student_of(folder: Path, method: HealMethod = HealMethod.FULL) -> Student:
    config = HealConfig(method=method, precision="float32")
    return load_student(folder, config, choose_device("cpu", "float32", 1))


def matrices(student: Student) -> dict[str, torch.Tensor]:
    named = student.model.named_parameters()
    return {name: value.detach().clone() for name, value in named if value.ndim > 1}


def rounded(folder: Path, type: str = "Q4_K_M") -> dict[str, torch.Tensor]:
    """The slice's matrices as its GGUF dequantizes."""
    plan = plan_quantization(folder, make_recipe(type))
    found = planned(folder, plan)
    return {name: torch.tensor(found[each.gguf_name]) for name, each in plan.tensors.items()}


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_gradient_at_w_plus_e_moves_w(whole: Path) -> None:
    """A step at W + e changes W by just the optimizer's step, whatever e is."""
    student = student_of(whole)
    before, served = matrices(student), rounded(whole)
    weights = QuantizedWeights(student, plan_quantization(whole, make_recipe("Q4_K_M")))
    weights.begin_step(0)
    assert same(matrices(student), served)
    assert torch.equal(student.head.weight, served["model.embed_tokens.weight"])
    name = "model.layers.0.mlp.up_proj.weight"
    parameter = student.trainable[name]
    (parameter * 3).sum().backward()
    torch.optim.AdamW([parameter], lr=1e-2, weight_decay=0.0).step()
    weights.end_step(1)
    assert not weights.folded
    assert torch.allclose(parameter.detach(), before[name] - 1e-2, atol=1e-6)
    other = "model.layers.1.mlp.up_proj.weight"
    assert torch.allclose(student.trainable[other].detach(), before[other], atol=1e-7)


def test_evaluations_see_the_quantized_model_and_leave_no_trace(whole: Path) -> None:
    student = student_of(whole)
    before, served = matrices(student), rounded(whole)
    student = replace(
        student, qat=QuantizedWeights(student, plan_quantization(whole, make_recipe("Q4_K_M")), start=5)
    )
    with student.as_served():
        assert same(matrices(student), served)
        assert torch.equal(student.head.weight, served["model.embed_tokens.weight"])
    assert same(matrices(student), before)
    assert torch.equal(student.head.weight, before["model.embed_tokens.weight"])


def test_norms_have_their_matrices_quantized_for_good(whole: Path) -> None:
    student = student_of(whole, HealMethod.NORMS)
    weights = QuantizedWeights(student, plan_quantization(whole, make_recipe("Q3_K_M")))
    weights.begin_step(0)
    assert same(matrices(student), rounded(whole, "Q3_K_M"))
    assert not weights.folded


@pytest.mark.parametrize("imatrix", [False, True])
def test_the_quantized_file_holds_what_was_trained(imatrix: bool, whole: Path, tmp_path: Path) -> None:
    config = replace(QAT, qat="Q3_K_M", qat_imatrix=imatrix)
    healed = heal(ordered(whole, tmp_path / "healed", config))
    assert healed.after.bits_per_byte.value < healed.before.bits_per_byte.value
    recipe = read_trained_recipe(tmp_path / "healed")
    assert recipe is not None
    assert (recipe.type, recipe.embedding_type) == ("Q3_K_M", "Q4_K")
    weights = read_trained_imatrix(tmp_path / "healed", recipe)
    assert (weights is not None) == imatrix == (tmp_path / "healed" / IMATRIX_FILE).is_file()
    done = quantize(tmp_path / "healed", recipe.type, imatrix=weights, embedding_type=recipe.embedding_type)
    assert done.imatrix_sha256 == recipe.imatrix_sha256
    theirs = dequantized(done.path)
    student = student_of(tmp_path / "healed")
    plan = plan_quantization(tmp_path / "healed", done.recipe, weights)
    assert (healed.manifest.healing or {})["quantization"]["types"] == plan.types
    names = gguf_names(read_anatomy(open_checkpoint(tmp_path / "healed").config))
    with replace(student, qat=QuantizedWeights(student, plan)).as_served():
        for name, values in matrices(student).items():
            assert np.array_equal(values.numpy(), theirs[names[name.removeprefix("model.")]]), name
    steps = [use.step for use in healed.manifest.texts]
    assert ("imatrix" in steps) == imatrix


def test_gemma4_heals_for_its_per_layer_embeddings_too(tmp_path: Path) -> None:
    """An SWA-only slice, which has an identity layer in its GGUF: the columns of that tensor move."""
    slice_ = slice_of(parent_gemma4(tmp_path / "parent"), tmp_path / "slices" / "swa", "swa")
    config = replace(QAT, qat="Q8_0", lr=3e-3, hidden_state_weight=10.0, hard_label_weight=0.0)
    healed = heal(ordered(slice_, tmp_path / "healed", config))
    assert healed.after.kl.value < healed.before.kl.value


class Killed(Exception):
    """The end of a run in the midst of it."""


@pytest.mark.parametrize("method", [HealMethod.FULL, HealMethod.NORMS])
def test_a_killed_run_resumes_to_the_same_bits(
    method: HealMethod, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two roundings, in the second part of the run; it goes on from the last rounding."""
    config = replace(QAT, method=method, qat_fraction=0.5 if method == HealMethod.FULL else None)
    heal(ordered(whole, tmp_path / "once", config))
    monkeypatch.setattr("slices.heal.loop.CHECKPOINT_SECONDS", 0.0)
    saved: list[int] = []
    save = run_state.save

    def watch(run: RunState, *values: object) -> None:
        saved.append(run.step)
        save(run, *values)  # type: ignore[arg-type]

    def kill(progress: TrainingProgress) -> None:
        if progress.step == 22:
            raise Killed

    monkeypatch.setattr(run_state, "save", watch)
    with pytest.raises(Killed):
        heal(ordered(whole, tmp_path / "again", config), kill)
    if method == HealMethod.FULL:  # plain until 12, then only where W is there
        assert saved == [*range(1, 13), 20]
    again = heal(ordered(whole, tmp_path / "again", config))
    assert again.run.step == 24
    assert bytes_of(tmp_path / "again") == bytes_of(tmp_path / "once")
    assert not list((tmp_path / "home").glob("healing/*/*"))


def test_the_best_checkpoint_is_the_best_quantized_one(whole: Path, tmp_path: Path) -> None:
    """Every point of the curve is of the quantized model: the first is post-training quantization."""
    healed = heal(ordered(whole, tmp_path / "healed", replace(QAT, qat_fraction=0.5)))
    record = (healed.manifest.healing or {})["quantization"]
    assert (record["start"], record["interval"]) == (12, 8)
    assert record["unquantized"]["kl"]["value"] < 1e-3 < healed.run.curve[0].kl.value
    best = min(healed.run.curve, key=lambda point: point.bits_per_byte.value)
    assert healed.selected.step == best.step
    bits = pytest.approx(best.bits_per_byte.value, rel=1e-4)  # norm gains are stored in bf16
    assert healed.selected.bits_per_byte.value == bits


def test_the_memory_bound_counts_the_quantizer(whole: Path) -> None:
    plain = memory_bound.bound(whole, whole, replace(QAT, qat=None), 4)
    bound = memory_bound.bound(whole, whole, QAT, 4)
    parts = manifest.read(whole).parameters
    assert bound.quantizer == 4 * parts.total
    assert bound.total > plain.total and plain.quantizer == 0


def test_a_time_budget_counts_the_roundings(whole: Path, tmp_path: Path) -> None:
    assert fit_steps(ordered(whole, tmp_path / "healed", QAT), 0.05).config.steps >= 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"qat": "Q7_Z"}, "'Q7_Z' is not supported"),
        ({"qat": "BF16"}, "--qat BF16: expected a type"),
        ({"qat": "IQ2_M"}, "IQ2_M needs an importance matrix"),
        ({"method": HealMethod.LORA}, "--method lora: expected a method"),
        ({"qat_fraction": 0.0}, "--qat-fraction 0.0: expected"),
        ({"method": HealMethod.NORMS, "qat_fraction": 0.5}, "expected none with --method norms"),
        ({"qat": None, "qat_imatrix": True}, "expected with --qat TYPE"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(BadConfig, match=problem):
        replace(QAT, **changes)  # type: ignore[arg-type]
