"""An importance matrix must be what llama.cpp itself sees enter its matrices, in a file that it reads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slices import demo_model
from slices.architecture.anatomy import read_anatomy
from slices.checkpoint import open_checkpoint
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.errors import BadCheckpoint, BadConfig, Exists, NotFound
from slices.export import export
from slices.quant.calibration import token_batches
from slices.quant.coverage import measure_coverage
from slices.quant.imatrix import collect, collect_on, hook_model
from slices.quant.imatrix_file import Imatrix, read_imatrix, write_imatrix
from slices.text.corpus import Corpus, Part, part_of
from tests.paths import PROSE
from tests.picos import SHAPES, calm, load, write_shape
from tests.slices.gguf_fixtures import SAMPLES
from tests.slices.llama_capture import CapturingRuntime

TEXT = " ".join(SAMPLES.values())
DOCUMENTS = [f"{number}. {TEXT[number:]}" for number in range(20)]


def assert_llama_cpp_sees_the_same(folder: Path, file: Path, context: int, within: float) -> Imatrix:
    """Torch reads the checkpoint, llama.cpp its GGUF: columns agree within a share of theirs and the mean."""
    batches = token_batches(folder, [TEXT, PROSE.read_text(encoding="utf-8")], 3 * context, context)
    found = collect_on(folder, batches)
    runtime = CapturingRuntime(file, context)
    runtime.read(batches)
    runtime.close()
    assert found.values.keys() - runtime.sums.keys() <= {"per_layer_model_proj.weight"}
    for name, experts in runtime.sums.items():
        counts = found.counts[name]
        if counts.any():  # else of an identity layer
            assert counts.tolist() == [rows for _, rows in experts]
            sums = np.stack(
                [np.broadcast_to(each, len(found.values[name]) // len(counts)) for each, _ in experts]
            )
            expected = (sums / np.maximum(counts, 1)[:, None]).reshape(-1)
            reached = np.repeat(counts > 0, sums.shape[1])
            allowed = within * (expected + expected[reached].mean())
            assert (np.abs(found.values[name] - expected) <= allowed)[reached].all(), name
            assert found.values[name][reached].mean() == pytest.approx(expected[reached].mean(), rel=within)
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_llama_cpp_sees_the_same(shape: str, tmp_path: Path) -> None:
    folder = write_shape(tmp_path / "slice", shape)
    folder = folder if shape == "gemma3" else calm(folder)
    file = export(folder, tmp_path / "slice.gguf", precision="F32")
    found = assert_llama_cpp_sees_the_same(folder, file, context=100, within=0.01)
    anatomy = read_anatomy(open_checkpoint(folder).config)
    coverage = measure_coverage(anatomy, found.values)
    assert coverage.share == 1 and not coverage.missing


def test_names_follow_the_blocks_of_the_gguf(tmp_path: Path, pico_e4b: Path) -> None:
    """An SWA-only slice has an identity layer in its GGUF: later layers move, and it weighs columns alike."""
    cut(SliceRequest(domain="biochem", layers="swa", model=str(pico_e4b), output=tmp_path / "slice"))
    folder = calm(tmp_path / "slice")
    file = export(folder, tmp_path / "slice.gguf", precision="F32")
    found = assert_llama_cpp_sees_the_same(folder, file, context=100, within=0.01)
    identity = {name for name, counts in found.counts.items() if not counts.any()}
    assert "blk.20.ffn_down.weight" in identity and {name.split(".")[1] for name in identity} == {"20"}
    assert found.values["blk.20.ffn_down.weight"].tolist() == [1.0] * 32
    assert "blk.35.ffn_down.weight" in found.values


@pytest.mark.slow
def test_llama_cpp_sees_the_same_in_the_real_model(tmp_path: Path) -> None:
    """In BF16, as slices are exported, whose matrices round their inputs in llama.cpp: within 2 %."""
    folder = demo_model.ensure(demo_model.NAME)
    file = export(folder, tmp_path / "real.gguf")
    found = assert_llama_cpp_sees_the_same(folder, file, context=512, within=0.02)
    assert len(found.values) == 18 * 7


def test_only_calibration_text_is_read(pico_gemma3: Path) -> None:
    corpus = Corpus("files", tuple(DOCUMENTS))
    kept = [document for document in DOCUMENTS if part_of(document) == Part.CALIBRATION]
    assert 0 < len(kept) < len(DOCUMENTS)
    everything, alone = (collect(pico_gemma3, text, tokens=1500, context=64) for text in (corpus, kept))
    assert everything.tokens == alone.tokens >= 1500 and everything.context == 64
    assert everything.sha256 == alone.sha256 == corpus.calibration().sha256
    for name, values in everything.values.items():
        assert np.array_equal(values, alone.values[name])


def test_few_tokens_sample_all_documents(pico_gemma3: Path) -> None:
    documents = [" ".join([letter] * 40) for letter in "abcdefghijklmnopqrst"]
    batches = token_batches(pico_gemma3, documents, tokens=20 * 16, context=16)
    assert batches == token_batches(pico_gemma3, documents[::-1], tokens=20 * 16, context=16)
    assert sum(map(len, batches[:-1])) < 20 * 16 <= sum(map(len, batches))
    for text in documents:
        stretches = token_batches(pico_gemma3, [text], tokens=10**6, context=16)
        assert len(stretches) > 1 and sum(ids in stretches for ids in batches[:20]) == 1


def test_every_token_is_read_once_if_there_is_room(pico_gemma3: Path) -> None:
    """In stretches after a bos each; "<bos>" in a text is text."""
    for text in DOCUMENTS:
        (whole,) = token_batches(pico_gemma3, [text], tokens=10**6, context=10**6)
        stretches = token_batches(pico_gemma3, [text], tokens=10**6, context=16)
        assert all(len(ids) <= 16 and ids[0] == 2 and 2 not in ids[1:] for ids in stretches)
        assert sorted(token for ids in stretches for token in ids[1:]) == sorted(whole[1:])


def test_what_cannot_be_measured_is_refused(pico_gemma3: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no token to measure"):
        collect(pico_gemma3, [""])
    with pytest.raises(BadConfig, match="context of at least 2 tokens, found 1"):
        collect(pico_gemma3, DOCUMENTS, context=1)
    (tmp_path / "config.json").write_bytes((pico_gemma3 / "config.json").read_bytes())
    with pytest.raises(NotFound, match=r"no tokenizer\.json"):
        collect(tmp_path, DOCUMENTS)


def test_infinity_names_the_matrix(pico_gemma3: Path) -> None:
    model = load(pico_gemma3)
    model.model.layers[3].mlp.up_proj.weight.data[0, 0] = float("inf")
    names = {f"model.layers.{at}.mlp.down_proj.weight": f"blk.{at}.ffn_down.weight" for at in range(6)}
    with pytest.raises(BadCheckpoint, match=r"^blk\.3\.ffn_down\.weight: expected sums"):
        hook_model(model, names, [[2, 300, 301]])


def test_any_model_and_its_output_layer(pico_gemma3: Path) -> None:
    """By hand: what enters the output layer is the last hidden state. Nothing stays hooked."""
    import torch

    model = load(pico_gemma3)
    batches = [[2, 300, 301, 302], [2, 310]]
    reports: list[tuple[str, int, int]] = []

    def on_progress(stage: str, done: int, total: int) -> None:
        reports.append((stage, done, total))

    found = hook_model(model, {"lm_head.weight": "output.weight"}, batches, on_progress)
    with torch.inference_mode():
        hidden = [model.base_model(torch.tensor([ids])).last_hidden_state[0].double() for ids in batches]
    expected = torch.cat(hidden).square().mean(dim=0).numpy()
    assert found.values.keys() == {"output.weight"}
    assert np.allclose(found.values["output.weight"], expected, rtol=1e-6)
    assert (found.tokens, found.counts["output.weight"].tolist()) == (6, [6])
    assert reports == [("importance matrix", 4, 6), ("importance matrix", 6, 6)]
    assert not any(module._forward_pre_hooks for module in model.modules())


def small() -> Imatrix:
    """A dense matrix and one of three experts, of which the second was never reached."""
    values = {"blk.0.a.weight": np.array([0, 2, 3e-8], np.float32)}
    values["blk.0.exps.weight"] = np.array([1, 2, 1, 1, 5, 6], np.float32)
    counts = {"blk.0.a.weight": np.array([700]), "blk.0.exps.weight": np.array([30, 0, 12])}
    return Imatrix(values=values, counts=counts, tokens=700, sha256="ab12", context=100, datasets=("law",))


def test_the_file_comes_back(tmp_path: Path) -> None:
    import gguf

    file = write_imatrix(small(), tmp_path / "law.gguf")
    found = read_imatrix(file)
    assert replace(found, values={}, counts={}) == replace(small(), values={}, counts={})
    for name, values in small().values.items():
        assert np.allclose(found.values[name], values, rtol=1e-6) and found.values[name].dtype == np.float32
        assert found.counts[name].tolist() == small().counts[name].tolist()
    stored = gguf.GGUFReader(file)
    fields = {
        key: stored.fields[f"imatrix.{key}"].contents() for key in ("datasets", "chunk_count", "chunk_size")
    }
    assert fields == {"datasets": ["law"], "chunk_count": 7, "chunk_size": 100}
    assert "general.architecture" not in stored.fields
    shapes = {tensor.name: tensor.data.shape for tensor in stored.tensors}
    assert shapes["blk.0.exps.weight.in_sum2"] == (3, 2) and shapes["blk.0.exps.weight.counts"] == (3, 1)
    assert stored.tensors[0].data.reshape(-1).tolist() == pytest.approx([0, 1400, 2.1e-5])
    with pytest.raises(Exists):
        write_imatrix(small(), file)
    assert [path.name for path in tmp_path.iterdir()] == ["law.gguf"]


def write_raw(
    file: Path, tensors: Mapping[str, Sequence[Any]], kind: str = "imatrix", dtype: str = "<f4"
) -> Path:
    """A file by hand, with llama-imatrix's own keys and no others."""
    import gguf

    writer = gguf.GGUFWriter(file, "")
    writer.add_type(kind)
    writer.add_array("imatrix.datasets", ["text.txt"])
    writer.add_uint32("imatrix.chunk_count", 2)
    writer.add_uint32("imatrix.chunk_size", 256)
    for name, values in tensors.items():
        writer.add_tensor(name, np.array(values, dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_a_file_of_llama_imatrix_is_read(tmp_path: Path) -> None:
    found = read_imatrix(write_raw(tmp_path / "a.gguf", {"b.in_sum2": [[512, 1024]], "b.counts": [[512]]}))
    assert found.values["b"].tolist() == [1, 2]
    assert (found.tokens, found.sha256, found.context, found.datasets) == (512, "", 256, ("text.txt",))


DAMAGED: dict[str, tuple[Mapping[str, Any], dict[str, str], str]] = {
    "a model": ({"b.in_sum2": [1], "b.counts": [1]}, {"kind": "model"}, "expected a GGUF of general.type"),
    "empty": ({"b.weight": [1, 2]}, {}, "found none"),
    "no counts": ({"b.in_sum2": [1, 2]}, {}, r"'b' needs both '\.in_sum2' and '\.counts'"),
    "no sums": ({"b.counts": [1]}, {}, r"'b' needs both"),
    "half precision": ({"b.in_sum2": [1], "b.counts": [1]}, {"dtype": "<f2"}, "ggml type 1; expected F32"),
    "not a number": ({"b.in_sum2": [1, np.nan], "b.counts": [1]}, {}, "sums of squared inputs, found nan"),
    "infinity": ({"b.in_sum2": [1, np.inf], "b.counts": [1]}, {}, "found inf"),
    "below zero": ({"b.in_sum2": [-4], "b.counts": [1]}, {}, "found -4"),
    "counts that do not fit": ({"b.in_sum2": [1, 2, 3], "b.counts": [1, 1]}, {}, "3 sums .* 2 counts"),
    "counts below zero": ({"b.in_sum2": [1], "b.counts": [-1]}, {}, r"expected counts of tokens, found \[-1"),
    "counts without number": ({"b.in_sum2": [1], "b.counts": [np.nan]}, {}, "expected counts of tokens"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_files_are_refused(damage: str, tmp_path: Path) -> None:
    tensors, how, problem = DAMAGED[damage]
    file = write_raw(tmp_path / "bad.gguf", tensors, **how)
    with pytest.raises(BadCheckpoint, match=rf"bad\.gguf: .*{problem}"):
        read_imatrix(file)


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-40], lambda data: b"IMAT" + data[4:]], ids=["cut", "magic"]
)
def test_spoilt_bytes_are_refused(spoil: Callable[[bytes], bytes], tmp_path: Path) -> None:
    file = write_imatrix(small(), tmp_path / "law.gguf")
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(BadCheckpoint, match=r"cut short|expected a GGUF file"):
        read_imatrix(file)
