"""An importance matrix reaches the tensors it was measured on, and one of another slice is refused."""

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from slices import manifest
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.errors import BadCheckpoint
from slices.export import export
from slices.gguf.header import GGUFHeader, GGUFTensor, read_gguf_header
from slices.gguf.tensor_types import type_number
from slices.quant.fit import fit_imatrix, imatrix_sha256
from slices.quant.imatrix_file import Imatrix
from slices.quant.quantize import quantize
from tests.picos import write_shape
from tests.slices.gguf_fixtures import SLIDING, visible_and_hidden, write_gemma3, write_manifest
from tests.slices.quant_fixtures import made_up_imatrix


@pytest.fixture(scope="module")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_gemma3(tmp_path_factory.mktemp("imatrix") / "pico", [SLIDING] * 2)
    write_manifest(folder, "pico")
    return folder


def weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every matrix of a GGUF as float32, (rows, columns)."""
    tensors = gguf.GGUFReader(path).tensors
    return {
        each.name: gguf.quants.dequantize(each.data, each.tensor_type).reshape(-1, each.shape[0])
        for each in tensors
        if len(each.shape) > 1
    }


def test_weighed_columns_come_out_closer(pico: Path, tmp_path: Path) -> None:
    """Of every matrix: the error weighed by its own values falls. Of the tables nothing changes."""
    imatrix = made_up_imatrix(pico)
    exact = weights(export(pico, tmp_path / "bf16.gguf"))
    plain = weights(quantize(pico, "Q3_K_S", tmp_path / "plain.gguf").path)
    weighed = weights(quantize(pico, "Q3_K_S", tmp_path / "weighed.gguf", imatrix=imatrix).path)
    for name, importance in imatrix.values.items():
        before, after = (
            float((importance * (found[name] - exact[name]) ** 2).sum()) for found in (plain, weighed)
        )
        assert after < 0.8 * before, name
    assert np.array_equal(plain["token_embd.weight"], weighed["token_embd.weight"])


def test_the_matrix_is_named_in_the_file_and_in_slice_json(pico: Path) -> None:
    imatrix = made_up_imatrix(pico)
    done = quantize(pico, "Q2_K", imatrix=imatrix, force=True)
    assert done.imatrix_sha256 == imatrix_sha256(imatrix)
    assert read_gguf_header(done.path).metadata["mom.quantize.imatrix_sha256"] == imatrix_sha256(imatrix)
    assert manifest.read(pico).quantized[0].imatrix_sha256 == imatrix_sha256(imatrix)
    other = made_up_imatrix(pico, seed=4)
    assert imatrix_sha256(other) != imatrix_sha256(imatrix)
    assert quantize(pico, "Q2_K", imatrix=other, force=True).sha256 != done.sha256


def test_bf16_takes_no_heed_of_one(pico: Path, tmp_path: Path) -> None:
    with_one = quantize(pico, "BF16", tmp_path / "a.gguf", imatrix=made_up_imatrix(pico))
    assert with_one.imatrix_sha256 is None
    assert with_one.sha256 == quantize(pico, "BF16", tmp_path / "b.gguf").sha256


def test_one_of_another_slice_is_refused(pico: Path, tmp_path: Path) -> None:
    imatrix, before = made_up_imatrix(pico), visible_and_hidden(pico)
    name = "blk.1.attn_q.weight"
    without = replace(imatrix, values={k: v for k, v in imatrix.values.items() if k != name})
    with pytest.raises(BadCheckpoint, match=r"no values for 'blk\.1\.attn_q\.weight'"):
        quantize(pico, "Q2_K", pico / "x.gguf", imatrix=without)
    short = replace(imatrix, values={**imatrix.values, name: imatrix.values[name][:-1]})
    with pytest.raises(BadCheckpoint, match=r"255 values for 'blk\.1\.attn_q\.weight', which needs 256"):
        quantize(pico, "Q2_K", pico / "x.gguf", imatrix=short)
    assert visible_and_hidden(pico) == before
    more = replace(imatrix, values={**imatrix.values, "blk.9.attn_q.weight": np.ones(4, np.float32)})
    assert quantize(pico, "Q2_K", tmp_path / "x.gguf", imatrix=more).imatrix_sha256


def test_a_identity_layer_needs_none(tmp_path: Path) -> None:
    """It is in the GGUF only; llama.cpp wants values for its matrices of zeros all the same."""
    cut(
        SliceRequest(
            domain="law",
            layers="swa",
            model=str(write_shape(tmp_path / "parent", "e4b")),
            output=tmp_path / "swa",
        )
    )
    exported = export(tmp_path / "swa", tmp_path / "bf16.gguf")
    header = read_gguf_header(exported)
    [identity_layer] = header.metadata["mom.identity_layers"]
    imatrix = made_up_imatrix(tmp_path / "swa")
    assert not [name for name in imatrix.values if name.startswith(f"blk.{identity_layer}.")]
    done = quantize(tmp_path / "swa", "IQ4_XS", imatrix=imatrix)
    assert done.bytes == done.predicted.bytes


def header_of(shape: tuple[int, ...]) -> GGUFHeader:
    tensor = GGUFTensor(
        name="blk.0.ffn_up_exps.weight", shape=shape, type=type_number("BF16"), start=0, nbytes=0
    )
    return GGUFHeader({}, (tensor,))


def test_experts_have_values_each() -> None:
    name = "blk.0.ffn_up_exps.weight"
    imatrix = Imatrix({name: np.arange(1, 13, dtype=np.float32)}, {name: np.array([1, 1, 1])}, 1)
    fitted = fit_imatrix(imatrix, header_of((4, 8, 3)), {name: "Q2_K"})
    assert np.array_equal(fitted[name], imatrix.values[name])
    with pytest.raises(BadCheckpoint, match=r"12 values for .*, which needs 8"):
        fit_imatrix(imatrix, header_of((4, 8, 2)), {name: "Q2_K"})
    assert fit_imatrix(imatrix, header_of((4, 8, 2)), {name: "BF16"}) == {}
