"""Coverage counts what llama.cpp quantizes and the model multiplies: no norms, tables or dead K/V."""

import ctypes
from pathlib import Path

import pytest

from slices.architecture.anatomy import match_tensors, read_anatomy
from slices.checkpoint import open_checkpoint
from slices.export import export
from slices.gguf.header import read_gguf_header
from slices.quant.coverage import executed_matrices, explain_coverage, measure_coverage
from slices.runtimes.llama_library import load_library
from tests.picos import SHAPES, add_dead_kv, write_shape

_TABLES = {"token_embd.weight", "per_layer_token_embd.weight"}
_Q8_0 = 7  # llama.cpp's number of such files


def quantized_by_llama_cpp(file: Path, target: Path) -> set[str]:
    """The tensors that llama.cpp's quantizer turns into another type."""
    library = load_library()
    params = library.llama_model_quantize_default_params()
    params.ftype, params.nthread = _Q8_0, 1
    status = library.llama_model_quantize(str(file).encode(), str(target).encode(), ctypes.byref(params))
    assert status == 0
    before = {tensor.name: tensor.type for tensor in read_gguf_header(file).tensors}
    return {each.name for each in read_gguf_header(target).tensors if each.type != before[each.name]}


@pytest.mark.parametrize("shape", SHAPES)
def test_these_are_what_llama_cpp_quantizes(shape: str, tmp_path: Path) -> None:
    folder = write_shape(tmp_path / "slice", shape)
    file = export(folder, tmp_path / "slice.gguf")
    anatomy = read_anatomy(open_checkpoint(folder).config)
    found = quantized_by_llama_cpp(file, tmp_path / "q.gguf")
    assert executed_matrices(anatomy).keys() == found - _TABLES
    assert found & _TABLES


def test_counts_of_a_small_e2b(tmp_path: Path) -> None:
    """15 layers, 5 of which share K/V: 10 x 9 + 5 x 7 matrices run, and dead K/V are stored as published."""
    folder = add_dead_kv(write_shape(tmp_path / "slice", "e2b"))
    checkpoint = open_checkpoint(folder)
    anatomy = read_anatomy(checkpoint.config)
    matrices = list(executed_matrices(anatomy))
    coverage = measure_coverage(anatomy, matrices)
    assert (coverage.covered, coverage.executed, coverage.share) == (125, 125, 1)
    dead, tables, projection, whole_model_norms, rope_freqs = 5 * 3, 2, 1, 2, 1
    vectors = 15 * (4 + 1 + 1 + 1) + 10 + whole_model_norms + rope_freqs  # q_norm and scalar; k_norm
    assert sum(coverage.others.values()) == dead + tables + projection + vectors
    assert coverage.stored == len(match_tensors(checkpoint, anatomy)[0]) + rope_freqs
    said = explain_coverage(coverage)
    assert "125 of 125 quantizable matrices that are executed (100%)" in said
    assert f"all {coverage.stored} tensors of the file show {125 / coverage.stored:.0%}" in said
    assert "K/V tensors of sharing layers, never executed (15)" in said


def test_a_missing_matrix_is_named_and_counted(pico_gemma3: Path) -> None:
    anatomy = read_anatomy(open_checkpoint(pico_gemma3).config)
    names = [name for name in executed_matrices(anatomy) if not name.startswith("blk.2.ffn")]
    coverage = measure_coverage(anatomy, [*names, "blk.99.ffn_up.weight"])
    assert (coverage.covered, coverage.executed) == (39, 42)
    assert set(coverage.missing) == {f"blk.2.ffn_{part}.weight" for part in ("gate", "up", "down")}
    said = explain_coverage(coverage)
    assert "39 of 42" in said and "(93%)" in said and "without one: blk.2.ffn_" in said


def test_only_what_is_stored_is_counted(tmp_path: Path) -> None:
    """A cut drops the dead K/V; then the tensors of its file are fewer."""
    folder = write_shape(tmp_path / "slice", "e2b")
    checkpoint = open_checkpoint(folder)
    anatomy = read_anatomy(checkpoint.config)
    entries, _ = match_tensors(checkpoint, anatomy)
    coverage = measure_coverage(anatomy, list(executed_matrices(anatomy)), entries)
    assert "never executed" not in explain_coverage(coverage)
    assert coverage.stored == len(read_gguf_header(export(folder, tmp_path / "slice.gguf")).tensors)
