"""A type keeps nothing of a healing's tiny change on its grid, and nearly all of it off the grid."""

import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGUFReader
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from slices import manifest
from slices.checkpoint import fingerprint, open_checkpoint
from slices.export import gguf_names
from slices.measure.healing_kept import HealingKept, measure_healing_kept
from slices.quant.quantization_grid import find_grid
from slices.quant.quantize import quantize
from slices.quant.requantize import requantize
from slices.quant.requantize_child import compare_matrix, sample_rows
from tests.slices.gguf_fixtures import write_manifest
from tests.slices.quant_fixtures import made_up_imatrix, pico_slice

__all__ = ["pico_slice"]  # a fixture
Floats = NDArray[np.float32]


def rewritten(folder: Path, target: Path, change: Callable[[Floats], Floats]) -> Path:
    """A copy of the slice in which every matrix of the layers is `change` of what it was, in bf16."""
    import torch

    shutil.copytree(folder, target)
    weights = load_file(target / "model.safetensors")
    for name, value in weights.items():
        if value.ndim == 2 and ".layers." in name:  # healing leaves the embeddings as they are
            weights[name] = torch.from_numpy(change(value.float().numpy())).to(torch.bfloat16)
    save_file(weights, target / "model.safetensors")
    return target


def noise(rms: float, seed: int = 5) -> Callable[[Floats], Floats]:
    random = np.random.default_rng(seed)

    def add(matrix: Floats) -> Floats:
        return matrix + random.normal(0, rms, matrix.shape).astype(np.float32)

    return add


def healed_from(before: Path, target: Path, rms: float) -> Path:
    """A slice that says it was healed from `before`: its matrices, plus a random change."""
    rewritten(before, target, noise(rms))
    made = {"slice_folder": str(before), "slice_fingerprint": fingerprint(open_checkpoint(before))}
    manifest.write(target, manifest.read(target).model_copy(update={"healing": made}))
    return target


def on_grid(pico: Path, target: Path, type: str) -> Path:
    return rewritten(pico, target, lambda matrix: requantize(matrix, type))


def every_matrix(folder: Path, type: str) -> dict[str, str]:
    from slices.architecture.anatomy import read_anatomy

    names = gguf_names(read_anatomy(open_checkpoint(folder).config))
    return {there: type if ".layers." in f".{here}" else "F16" for here, there in names.items()}


def kept_of(folder: Path, type: str) -> HealingKept:
    found = measure_healing_kept(folder, type, every_matrix(folder, type))
    assert found is not None
    return found


@pytest.mark.parametrize(("type", "rms"), [("Q4_0", 1e-3), ("Q8_0", 1e-4)])
def test_a_tiny_change_on_the_grid_is_lost_and_the_warning_names_the_grid(
    pico: Path, tmp_path: Path, type: str, rms: float
) -> None:
    healed = healed_from(on_grid(pico, tmp_path / "before", type), tmp_path / "healed", rms)
    found = kept_of(healed, type)
    assert found.share is not None and abs(found.share.value) < 0.1
    assert found.parent_grid == {type: 7}
    assert found.warning is not None
    assert f"7 of 7 matrices of the unhealed slice lie on a quantization grid, {type} (7)" in found.warning
    assert set(found.by_kind) == {
        "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"
    }  # fmt: skip


@pytest.mark.parametrize("type", ["Q4_0", "Q8_0", "Q4_K"])
def test_the_same_change_off_the_grid_is_kept(pico: Path, tmp_path: Path, type: str) -> None:
    found = kept_of(healed_from(pico, tmp_path / "healed", 1e-3), type)
    assert found.share is not None
    assert found.share.value == pytest.approx(1, abs=max(0.05, 4 * found.share.stderr))
    assert (found.parent_grid, found.warning, found.source) == ({}, None, "slice")


def test_a_large_change_leaves_the_grid(pico: Path, tmp_path: Path) -> None:
    before = on_grid(pico, tmp_path / "before", "Q4_0")
    found = kept_of(healed_from(before, tmp_path / "healed", 0.03), "Q4_0")
    assert found.share is not None and found.share.value > 0.9
    assert found.parent_grid == {"Q4_0": 7} and found.warning is None


def test_rows_come_out_as_in_the_quantized_file(pico: Path, tmp_path: Path) -> None:
    """With an importance matrix, for every tensor of a mix: what is measured is what the file holds."""
    imatrix = made_up_imatrix(pico)
    done = quantize(pico, "Q4_K_M", tmp_path / "x.gguf", threads=1, imatrix=imatrix)
    exported = quantize(pico, "BF16", tmp_path / "bf16.gguf", threads=1)
    stored = {tensor.name: tensor for tensor in GGUFReader(done.path).tensors}
    compared = 0
    for tensor in GGUFReader(exported.path).tensors:
        if tensor.name not in imatrix.values:
            continue
        rows = gguf.quants.dequantize(tensor.data, tensor.tensor_type)[sample_rows(tensor.data.shape[0])]
        theirs = gguf.quants.dequantize(stored[tensor.name].data, stored[tensor.name].tensor_type)
        ours = requantize(rows, done.predicted.types[tensor.name], imatrix.values[tensor.name])
        np.testing.assert_array_equal(ours, theirs[sample_rows(tensor.data.shape[0])])
        compared += 1
    assert compared == 7


def test_the_importance_matrix_is_used(pico: Path, tmp_path: Path) -> None:
    healed = healed_from(pico, tmp_path / "healed", 1e-3)
    types, imatrix = every_matrix(healed, "Q4_K"), made_up_imatrix(pico)
    plain, weighted = (measure_healing_kept(healed, "Q4_K", types, each) for each in (None, imatrix))
    assert plain is not None and weighted is not None and plain.share != weighted.share


def test_the_sample_agrees_with_all_rows(pico: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = on_grid(pico, tmp_path / "before", "Q4_0")
    healed = healed_from(before, tmp_path / "healed", 6e-3)
    found, whole = kept_of(healed, "Q4_0"), _over_all_rows(before, healed)
    assert found.share is not None
    assert found.rows == 7 * 16
    assert abs(found.share.value - whole) < 4 * found.share.stderr


def _over_all_rows(before: Path, healed: Path) -> float:
    old, new = (load_file(folder / "model.safetensors") for folder in (before, healed))
    kept = changed = 0.0
    for name, value in old.items():
        if value.ndim == 2 and ".layers." in name:
            first, second = value.float().numpy(), new[name].float().numpy()
            change = second - first
            kept += float(((requantize(second, "Q4_0") - requantize(first, "Q4_0")) * change).sum())
            changed += float((change**2).sum())
    return kept / changed


def test_a_slice_that_was_not_healed_has_no_share(pico: Path) -> None:
    assert measure_healing_kept(pico, "Q8_0", every_matrix(pico, "Q8_0")) is None


def test_a_healing_of_norms_alone_changes_no_quantized_matrix(pico: Path, tmp_path: Path) -> None:
    found = kept_of(healed_from(pico, tmp_path / "healed", 0.0), "Q8_0")
    assert (found.share, found.warning) == (None, None)
    assert found.reason == "healing changed no quantized matrix"


def test_a_slice_that_changed_since_is_not_taken_for_the_unhealed_one(pico: Path, tmp_path: Path) -> None:
    before = on_grid(pico, tmp_path / "before", "Q4_0")
    healed = healed_from(before, tmp_path / "healed", 1e-3)
    shutil.rmtree(before)
    write_manifest(rewritten(pico, before, noise(0.1)), "before")
    found = kept_of(healed, "Q4_0")
    assert found.share is None
    assert found.reason is not None and "gone or changed, and its parent too" in found.reason


def test_find_grid() -> None:
    rows = np.random.default_rng(0).normal(0, 0.03, (8, 256)).astype(np.float32)
    assert find_grid(rows) is None
    assert find_grid(np.zeros_like(rows)) is None
    for type in ("Q4_0", "Q4_K", "Q5_0", "Q6_K", "Q8_0"):
        grid = requantize(rows, type)
        rounded = (grid.view(np.uint32) + 0x8000 & 0xFFFF0000).view(np.float32)
        assert find_grid(rounded) == type


def test_padded_rows_are_compared_as_they_are_stored(pico: Path, tmp_path: Path) -> None:
    """Blocks of 32 weights divide the rows with and without padding, so the padding changes nothing."""
    folder = healed_from(pico, tmp_path / "healed", 1e-2)
    headers = [
        next(each for each in open_checkpoint(path).entries if each.name.endswith("0.mlp.up_proj.weight"))
        for path in (pico, folder)
    ]
    before, after = (
        {"file": str(each.file), "dtype": each.dtype, "start": each.start, "shape": list(each.shape)}
        for each in headers
    )
    job = {"name": "up", "type": "Q4_0", "columns": None, "before": before, "after": after}
    plain = compare_matrix(job, None)
    padded = compare_matrix({**job, "columns": headers[0].shape[1] + 256}, None)
    assert any(plain["changed"]) and padded == plain
