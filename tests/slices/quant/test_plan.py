"""What is planned of a quantization is what its file holds, to the bit."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from slices.checkpoint import open_checkpoint
from slices.errors import BadCheckpoint, Unsupported
from slices.quant.imatrix_file import Imatrix
from slices.quant.plan import QuantizationPlan, plan_quantization
from slices.quant.quantize import quantize
from slices.quant.recipe import make_recipe
from slices.quant.types import TYPES
from tests.picos import write_shape
from tests.slices.gguf_fixtures import SLIDING, write_gemma3, write_manifest
from tests.slices.heal_fixtures import parent_gemma4, slice_of
from tests.slices.quant_fixtures import made_up_imatrix

Floats = NDArray[np.float32]
WITHOUT = [name for name, type in TYPES.items() if name != "BF16" and type.imatrix != "needed"]
WITH = [  # llama.cpp prepares IQ2_M for 4 s, in each process
    pytest.param(name, marks=[pytest.mark.slow] if name == "IQ2_M" else [])
    for name, type in TYPES.items()
    if type.imatrix != "ignored"
]


@pytest.fixture(scope="module")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_gemma3(tmp_path_factory.mktemp("plan") / "pico", [SLIDING])
    write_manifest(folder, "pico")
    return folder


def dequantized(path: Path) -> dict[str, Floats]:
    """Every matrix of a GGUF by its name, by gguf-py, in numpy's order of axes."""
    return {
        each.name: gguf.quants.dequantize(each.data, each.tensor_type).reshape(*reversed(each.shape))
        for each in gguf.GGUFReader(path).tensors
        if len(each.shape) > 1
    }


def planned(folder: Path, plan: QuantizationPlan) -> dict[str, Floats]:
    """The slice's matrices as the plan rounds them, by their names in the GGUF."""
    entries = {entry.name: entry for entry in open_checkpoint(folder).entries}
    found = {}
    for name, tensor in plan.tensors.items():
        entry = entries[name]
        bits = np.fromfile(entry.file, "<u2", entry.nbytes // 2, offset=entry.start)
        values = (bits.astype(np.uint32) << 16).view(np.float32).reshape(entry.shape)
        tensor.requantize(values, threads=2)
        found[tensor.gguf_name] = values
    return found


def assert_same(
    folder: Path, type: str, out: Path, imatrix: Imatrix | None = None, pad_rows: bool = False
) -> dict[str, Floats]:
    """What is planned of every matrix is what the file holds of it, paddings left out."""
    done = quantize(folder, type, out, imatrix=imatrix, pad_rows=pad_rows)
    plan = plan_quantization(folder, done.recipe, imatrix)
    ours, theirs = planned(folder, plan), dequantized(out)
    assert ours
    for name, values in ours.items():
        there = theirs[name]
        if there.shape != values.shape:  # zeros of identity layers lie between, or of padding behind
            assert there.size > values.size
            there = there[there.any(axis=1)][:, there.any(axis=0)]
        assert np.array_equal(values, there), name
    return theirs


@pytest.mark.parametrize("type", WITHOUT)
def test_every_type_comes_out_to_the_bit(type: str, pico: Path, tmp_path: Path) -> None:
    theirs = assert_same(pico, type, tmp_path / "x.gguf")
    assert len(theirs) == 8  # the embedding and seven matrices of a layer


@pytest.mark.parametrize("type", WITH)
def test_every_type_comes_out_to_the_bit_with_an_importance_matrix(
    type: str, pico: Path, tmp_path: Path
) -> None:
    assert_same(pico, type, tmp_path / "x.gguf", made_up_imatrix(pico))


@pytest.mark.parametrize("shape", ["e2b", "26b", "gemma3"])
def test_every_shape_comes_out_to_the_bit(shape: str, tmp_path: Path) -> None:
    """Per-layer embeddings, experts, and rows of 32, whose types llama.cpp replaces."""
    folder = write_shape(tmp_path / shape, shape)
    write_manifest(folder, shape)
    assert_same(folder, "Q4_K_M", tmp_path / "x.gguf", made_up_imatrix(folder))


def test_identity_layers_move_the_columns_of_the_per_layer_embedding(tmp_path: Path) -> None:
    slice_ = slice_of(parent_gemma4(tmp_path / "parent"), tmp_path / "slices" / "swa", "swa")
    theirs = assert_same(slice_, "Q4_K_M", tmp_path / "x.gguf")
    plan = plan_quantization(slice_, make_recipe("Q4_K_M"))
    (moved,) = [each for each in plan.tensors.values() if each.columns is not None]
    assert moved.gguf_name == "per_layer_token_embd.weight"
    assert moved.columns is not None
    assert moved.columns[1] == theirs[moved.gguf_name].shape[1]


def test_what_cannot_be_quantized_is_refused(pico: Path) -> None:
    with pytest.raises(Unsupported, match="IQ2_M needs an importance matrix"):
        plan_quantization(pico, make_recipe("IQ2_M"))
    with pytest.raises(Unsupported, match="BF16 rounds nothing"):
        plan_quantization(pico, make_recipe("BF16"))
    other = made_up_imatrix(pico)
    values = {name: values[:-1] for name, values in other.values.items()}
    with pytest.raises(BadCheckpoint, match="it is of another slice"):
        plan_quantization(pico, make_recipe("Q2_K"), Imatrix(values, other.counts, tokens=1))
