"""The predicted size is the real one, to the byte, whatever the type and the model."""

import tempfile
from pathlib import Path

import pytest

from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.export import export
from slices.gguf.header import read_gguf_header
from slices.quant.imatrix_file import Imatrix
from slices.quant.quantize import quantize
from slices.quant.size import predict_size
from slices.quant.types import TYPES
from tests.picos import SIX, write_gemma4, write_shape
from tests.slices.gguf_fixtures import SLIDING, visible_and_hidden, write_gemma3, write_manifest
from tests.slices.quant_fixtures import made_up_imatrix


@pytest.fixture(scope="module")
def gemma3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_gemma3(tmp_path_factory.mktemp("size") / "pico", [SLIDING] * 2)
    write_manifest(folder, "pico")
    return folder


@pytest.fixture(scope="module")
def gemma4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SWA-only slice of a Gemma 4 of E4B's shape: with an identity layer, whose matrices are tiny."""
    parent = write_gemma4(
        tmp_path_factory.mktemp("size") / "parent", SIX * 3, num_kv_shared_layers=6, hidden_size=256,
        intermediate_size=512, hidden_size_per_layer_input=256, num_attention_heads=4, head_dim=64,
        global_head_dim=64,
    )  # fmt: skip
    cut(SliceRequest(domain="law", layers="swa", model=str(parent), output=parent.parent / "swa"))
    return parent.parent / "swa"


def check_size(folder: Path, type: str, out: Path, imatrix: Imatrix | None = None) -> None:
    """Predict, quantize, compare; the prediction is also what a run over the whole export says."""
    before = visible_and_hidden(folder)
    predicted = predict_size(folder, type, with_imatrix=imatrix is not None)
    assert visible_and_hidden(folder) == before
    done = quantize(folder, type, out, imatrix=imatrix, threads=1)
    assert done.predicted == predicted
    assert done.bytes == predicted.bytes == out.stat().st_size
    assert done.bits_per_weight == predicted.bits_per_weight
    assert {each.name for each in read_gguf_header(out).tensors} == predicted.types.keys()


@pytest.mark.parametrize("type", [name for name in TYPES if name != "IQ2_M"])
def test_gemma3(gemma3: Path, tmp_path: Path, type: str) -> None:
    check_size(gemma3, type, tmp_path / "x.gguf")


@pytest.mark.parametrize("type", ["IQ2_M", "IQ4_XS"])
def test_with_an_imatrix(gemma3: Path, tmp_path: Path, type: str) -> None:
    """On which IQ4_XS' choice of types depends, and IQ2_M as a whole."""
    check_size(gemma3, type, tmp_path / "x.gguf", made_up_imatrix(gemma3))


@pytest.mark.parametrize("type", ["Q2_K", "IQ4_XS", "Q4_K_M", "Q8_0", "BF16"])
def test_gemma4_with_a_identity_layer(gemma4: Path, tmp_path: Path, type: str) -> None:
    check_size(gemma4, type, tmp_path / "x.gguf")


@pytest.mark.parametrize("shape", ["12b", "26b", "31b"])
def test_shapes_of_gemma4(tmp_path: Path, shape: str) -> None:
    """Experts, of which llama.cpp stores three axes; and rows of 32 numbers, where most types give way."""
    check_size(write_shape(tmp_path / shape, shape), "Q4_K_M", tmp_path / "x.gguf")


def test_the_export_on_the_way_is_predicted(gemma3: Path, tmp_path: Path) -> None:
    exported = export(gemma3, tmp_path / "x.gguf", name="pico")
    assert predict_size(gemma3, "Q2_K").export_bytes == exported.stat().st_size


def test_a_prediction_leaves_nothing(gemma3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = visible_and_hidden(gemma3)
    predict_size(gemma3, "Q2_K")
    assert not list(tmp_path.iterdir())
    assert visible_and_hidden(gemma3) == before


@pytest.mark.parametrize("length", [1, 12, 23, 34])
def test_metadata_of_any_length(gemma3: Path, tmp_path: Path, length: int) -> None:
    """The tensors begin at a multiple of 32 bytes."""
    out, asked = tmp_path / "x.gguf", {"n" * length: "Q8_0"}
    done = quantize(gemma3, "Q8_0", out, overrides=asked, threads=1)
    assert done.bytes == done.predicted.bytes == predict_size(gemma3, "Q8_0", overrides=asked).bytes
