"""Padded hidden states: the same function in llama.cpp, and the same bits as planned."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mom.workflows.quantize import QuantizeOptions, predict_slice
from slices import manifest
from slices.errors import Unsupported
from slices.export import write_gguf
from slices.gguf.header import read_gguf_header
from slices.quant.plan import plan_quantization
from slices.quant.quantize import quantize
from slices.quant.recipe import make_recipe
from slices.quant.size import predict_size
from slices.runtimes.llama_runtime import LlamaRuntime
from tests.slices.gguf_fixtures import FULL, SLIDING, write_gemma3, write_manifest
from tests.slices.quant.test_plan import assert_same
from tests.slices.quant_fixtures import made_up_imatrix


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 480, which 32 divides and 256 does not; the padded hidden size is 512."""
    folder = write_gemma3(tmp_path_factory.mktemp("narrow") / "narrow", [SLIDING, FULL], hidden_size=480)
    write_manifest(folder, "narrow")
    return folder


def log_probs(path: Path) -> np.ndarray:
    runtime = LlamaRuntime(path, threads=1, n_ctx=256)
    try:
        return np.concatenate(list(runtime.distributions([2, *range(5, 60)])))
    finally:
        runtime.close()


def test_the_padded_model_computes_the_same(narrow: Path, tmp_path: Path) -> None:
    plain, padded = tmp_path / "plain.gguf", tmp_path / "padded.gguf"
    write_gguf(narrow, plain, precision="F32")
    write_gguf(narrow, padded, precision="F32", pad_rows=True)
    ours, theirs = log_probs(padded), log_probs(plain)
    assert float((np.exp(theirs) * (theirs - ours)).sum(axis=1).mean()) < 1e-6  # KL, nats per token
    assert np.abs(theirs - ours).max() < 1e-2
    header = read_gguf_header(padded)
    assert header.metadata["gemma3.embedding_length"] == 512
    assert header.metadata["mom.hidden_size"] == 480


@pytest.mark.parametrize(("type", "weighted"), [("Q2_K", False), ("Q3_K_M", True), ("IQ3_S", True)])
def test_padded_types_fit_every_row_and_come_out_as_planned(
    type: str, weighted: bool, narrow: Path, tmp_path: Path
) -> None:
    imatrix = made_up_imatrix(narrow) if weighted else None
    out = tmp_path / "x.gguf"
    done = quantize(narrow, type, out, imatrix=imatrix, pad_rows=True)
    assert done.bytes == predict_size(narrow, type, with_imatrix=weighted, pad_rows=True).bytes
    assert not any("does not divide" in note for note in done.predicted.notes)
    plain = predict_size(narrow, type, with_imatrix=weighted)
    assert any("does not divide" in note for note in plain.notes)
    plan = plan_quantization(narrow, make_recipe(type, pad_rows=True), imatrix)
    assert plan.types == {name: kind for name, kind in done.predicted.types.items() if kind != "F32"}


def test_every_padded_matrix_is_what_was_planned(narrow: Path, tmp_path: Path) -> None:
    assert_same(narrow, "Q2_K", tmp_path / "x.gguf", made_up_imatrix(narrow), pad_rows=True)
    assert_same(narrow, "Q3_K_M", tmp_path / "y.gguf", pad_rows=True)


def test_padding_is_refused_where_it_does_not_pay(narrow: Path, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"--pad-rows does not pay for Q8_0: [\d,]+ bytes with it"):
        quantize(narrow, "Q8_0", tmp_path / "x.gguf", pad_rows=True)
    wide = write_gemma3(tmp_path / "wide", [SLIDING])
    with pytest.raises(Unsupported, match="256 divides rows of 256 already"):
        quantize(wide, "Q2_K", tmp_path / "x.gguf", pad_rows=True)
    assert not (tmp_path / "x.gguf").exists()


def test_padding_is_another_recipe_than_a_slice_was_healed_for(narrow: Path, tmp_path: Path) -> None:
    """Its roundings are others, so that what the slice was healed for does not apply."""
    healed = Path(shutil.copytree(narrow, tmp_path / "healed"))
    trained = {"type": "Q2_K", "embedding_type": "Q4_K", "imatrix_sha256": None}
    made = manifest.read(healed).model_copy(update={"healing": {"quantization": trained}})
    manifest.write(healed, made)
    options = QuantizeOptions(slice=str(healed), type="Q2_K")
    padded = predict_slice(replace(options, pad_rows=True))
    assert "as the slice was healed for" in " ".join(predict_slice(options)["notes"])
    assert "another recipe than the slice was healed for" in " ".join(padded["notes"])
