"""What llama.cpp aborts on or misreads is refused before it sees the file; nothing else is."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slices import export as export_module
from slices.cut import cut
from slices.dialects.gemma4 import GEMMA4
from slices.dialects.table import as_they_are
from slices.errors import BadCheckpoint, NotFound
from slices.export import export
from slices.gguf_arrays import read_numbers, read_texts
from slices.gguf_check import check_gguf
from slices.gguf_header import read_gguf_header
from slices.quantize import quantize
from slices.request import Request
from tests.conftest import E4B_TYPES
from tests.picos import SHAPES, write_gemma4, write_shape
from tests.slices.gguf_document import F32, I32, STR, U32, Document, Value, parse, render
from tests.slices.gguf_fixtures import FULL, SLIDING, tokenizer_json, write_gemma3

KINDS = ["all", "0-23", "0,22,23,24,29,41", "swa", "0-4,6-10", "22,24", "5,22,24", "full", "3", "5"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Document]:
    """A Gemma 3 with either kind of tokenizer, and a Gemma 4 of E4B's shape with a spacer."""
    folder = tmp_path_factory.mktemp("check")
    three = write_gemma3(folder / "gemma3", [SLIDING, FULL, SLIDING])
    export(three, folder / "gemma3.gguf")
    merged = tokenizer_json(tokenizer_json()["model"]["merges"][::2])
    (three / "tokenizer.json").write_text(json.dumps(merged), encoding="utf-8")
    export(three, folder / "merges.gguf")
    four = write_gemma4(folder / "gemma4", E4B_TYPES, num_kv_shared_layers=18)
    export(four, folder / "gemma4.gguf")
    cut(Request("law", "swa", str(four), output=folder / "swa"))
    export(folder / "swa", folder / "spaced.gguf")
    export(write_shape(folder / "26b", "26b"), folder / "experts.gguf")
    return {path.stem: parse(path.read_bytes()) for path in folder.glob("*.gguf")}


def number(key: str, value: Any, kind: int = U32) -> Callable[[Document], None]:
    """Set a setting of the architecture."""

    def change(document: Document) -> None:
        document.set(f"{document.arch}.{key}", Value(kind, value))

    return change


def array(key: str, values: list[Any], kind: int) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        name = key if key.startswith(("tokenizer.", "mom.")) else f"{document.arch}.{key}"
        document.set(name, Value(9, values, kind))

    return change


def without(key: str) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        del document.keys[key]

    return change


def item(key: str, at: int, new: Any) -> Callable[[Document], None]:
    """Change one item of an array."""

    def change(document: Document) -> None:
        document.keys[key].value[at] = new

    return change


def tensor(which: str, **changes: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        document.tensors[which] = replace(document.tensors[which], **changes)

    return change


def no_tensor(name: str) -> Callable[[Document], None]:
    return lambda document: document.tensors.pop(name) and None


def another_tensor(document: Document) -> None:
    document.tensors["blk.0.attn_q.bias"] = replace(document.tensors["blk.0.attn_norm.weight"])


TOKENS, TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
PATTERN, SHARED = "attention.sliding_window_pattern", "attention.shared_kv_layers"
HAZARDS: dict[str, tuple[str, Callable[[Document], None], str]] = {
    "no architecture": ("gemma3", without("general.architecture"), "general.architecture is missing"),
    "no layers": ("gemma3", number("block_count", 0), "block_count is 0; expected 1 to 512"),
    "too many layers": ("gemma3", number("block_count", 513), "block_count is 513"),
    "layers as text": ("gemma3", lambda d: d.set("gemma3.block_count", Value(STR, "3")), "of the type str"),
    "more layers than tensors": ("gemma3", number("block_count", 4), "sliding_window_pattern has 3 values"),
    "no context": ("gemma3", number("context_length", 0), "context_length is 0"),
    "odd context": ("gemma3", number("context_length", 300), "expected 256, or 512 and more"),
    "endless context": ("gemma3", number("context_length", 2**32 - 1), "context_length is 4294967295"),
    "no heads": ("gemma3", number("attention.head_count", 0), "head_count is 0"),
    "no K/V heads": ("gemma3", number("attention.head_count_kv", 0), "head_count_kv is 0"),
    "uneven heads": ("gemma3", number("attention.head_count_kv", 3), "4 heads for 3 K/V heads"),
    "fewer K/V heads": ("gemma3", number("attention.head_count_kv", 1), "attn_k.weight' has the shape"),
    "heads by layer": ("gemma3", array("attention.head_count", [4, 4, 2], U32), "differs by layer"),
    "heads of two layers": ("gemma3", array("attention.head_count", [4, 4], U32), "2 values for 3 layers"),
    "another width": ("gemma3", number("embedding_length", 128), "has the shape"),
    "another value size": ("gemma3", number("attention.value_length", 32), "expected one even"),
    "too much turned": ("gemma3", number("rope.dimension_count", 66), "an even number up to 64"),
    "no epsilon": ("gemma3", without("gemma3.attention.layer_norm_rms_epsilon"), "epsilon is missing"),
    "zero epsilon": ("gemma3", number("attention.layer_norm_rms_epsilon", 0.0, F32), "epsilon is 0.0"),
    "NaN": ("gemma3", number("attention.layer_norm_rms_epsilon", float("nan"), F32), "finite"),
    "turning backwards": ("gemma3", number("rope.freq_base", -1.0, F32), "freq_base is -1.0"),
    "no cap": ("gemma3", number("final_logit_softcapping", 0.0, F32), "softcapping is 0.0"),
    "no window": ("gemma3", number("attention.sliding_window", 0), "sliding_window is 0"),
    "window missing": ("gemma3", without("gemma3.attention.sliding_window"), "sliding_window is missing"),
    "unknown scaling": (
        "gemma3",
        lambda d: d.set("gemma3.rope.scaling.type", Value(STR, "llama3")),
        "scaling.type is 'llama3'",
    ),
    "experts of none": ("gemma3", number("expert_used_count", 2), "2 of 0 experts"),
    "not causal": ("gemma3", number("attention.causal", False, 7), "attention.causal is there"),
    "more to predict": ("gemma3", number("nextn_predict_layers", 3), "nextn_predict_layers is there"),
    "in parts": ("gemma3", lambda d: d.set("split.count", Value(2, 2)), "one part of several"),
    "unknown tokenizer": ("gemma3", lambda d: d.set("tokenizer.ggml.model", Value(STR, "t5")), "'t5'"),
    "two tokens alike": ("gemma3", item(TOKENS, 300, b"<bos>"), "holds b'<bos>' twice"),
    "no text": ("gemma3", item(TOKENS, 300, b"\xff"), "'utf-8' codec"),
    "no byte": ("gemma3", item(TOKENS, 12 + 0x41, b"<0xzz>"), "256 byte tokens"),
    "byte as text": ("gemma3", item(TYPES, 12 + 0x41, 1), "256 byte tokens"),
    "unknown token type": ("gemma3", item(TYPES, 300, 7), "outside 0..6"),
    "fewer scores": ("gemma3", array("tokenizer.ggml.scores", [0.0] * 5, F32), "one for each token"),
    "no types": ("gemma3", without(TYPES), "one for each token"),
    "bos outside": (
        "gemma3",
        lambda d: d.set("tokenizer.ggml.bos_token_id", Value(U32, 10**6)),
        "bos_token_id is 1000000",
    ),
    "no eos": ("gemma3", without("tokenizer.ggml.eos_token_id"), "eos_token_id is missing"),
    "no merges": ("merges", without("tokenizer.ggml.merges"), "merges is None"),
    "merge of one": ("merges", item("tokenizer.ggml.merges", 3, b"ab"), "holds b'ab'"),
    "tensor missing": ("gemma3", no_tensor("blk.1.ffn_up.weight"), "'blk.1.ffn_up.weight' is missing"),
    "tensor unknown": ("gemma3", another_tensor, "'blk.0.attn_q.bias' is none that"),
    "tensor reshaped": ("gemma3", tensor("blk.1.attn_q.weight", shape=(128, 512)), "has the shape"),
    "norm in bf16": ("gemma3", tensor("output_norm.weight", type=30, data=bytes(512)), "ggml type 30"),
    "matrix of whole numbers": (
        "gemma3", tensor("blk.0.attn_k.weight", type=26, data=bytes(4 * 256 * 128)), "ggml type 26",
    ),
    "rope_freqs in a Gemma 3": (
        "gemma3",
        lambda d: d.tensors.update({"rope_freqs.weight": d.tensors["blk.0.attn_q_norm.weight"]}),
        "'rope_freqs.weight' is none that",
    ),
    "no sliding layer": ("gemma4", array(PATTERN, [False] * 42, 7), "ends its process"),
    "no pattern": ("gemma4", without(f"gemma4.{PATTERN}"), "expected an array of bool"),
    "pattern too short": ("gemma4", array(PATTERN, [True] * 5, 7), "5 values for 42 layers"),
    "all shared": ("gemma4", number(SHARED, 42), "0 of 42 layers have K/V of their own"),
    "one own": ("gemma4", number(SHARED, 41), "wants 2 where others share it"),
    "one more shared": ("gemma4", number(SHARED, 19), "K/V of layer 21, but the last sliding"),
    "one fewer shared": ("gemma4", number(SHARED, 17), "K/V of layer 23, but the last sliding"),
    "donors swapped": (
        "gemma4",
        lambda d: _swap(d.keys[f"gemma4.{PATTERN}"].value, 22, 23),
        "but the last sliding layer with its own is",
    ),
    "spacer not named": ("spaced", without("mom.spacers"), "but the last sliding layer with its own is [20]"),
    "spacers as text": ("spaced", lambda d: d.set("mom.spacers", Value(STR, "20")), "array of layer numbers"),
    "donor named a spacer": ("gemma4", array("mom.spacers", [22], I32), "read the K/V of layer 22"),
    "rope_freqs missing": ("gemma4", no_tensor("rope_freqs.weight"), "'rope_freqs.weight' is missing"),
    "rope_freqs for nothing": (
        "spaced",
        lambda d: d.tensors.update({"rope_freqs.weight": d.tensors["blk.0.attn_q_norm.weight"]}),
        "'rope_freqs.weight' is none that",
    ),
    "no sliding head": ("gemma4", without("gemma4.attention.key_length_swa"), "key_length_swa is missing"),
    "wider PLE": ("gemma4", number("embedding_length_per_layer_input", 32), "has the shape"),
    "own K missing": ("gemma4", no_tensor("blk.3.attn_k.weight"), "'blk.3.attn_k.weight' is missing"),
    "more experts used": ("experts", number("expert_used_count", 9), "9 of 4 experts"),
    "too many experts": ("experts", number("expert_count", 513), "expert_count is 513"),
    "experts for no router": (
        "experts", no_tensor("blk.0.ffn_gate_inp.weight"), "is none that llama.cpp asks for",
    ),
}  # fmt: skip


def _swap(values: list[Any], one: int, other: int) -> None:
    values[one], values[other] = values[other], values[one]


@pytest.mark.parametrize("hazard", HAZARDS)
def test_hazards_are_named(hazard: str, files: dict[str, Document], tmp_path: Path) -> None:
    which, change, message = HAZARDS[hazard]
    document = files[which].copy()
    (tmp_path / "good.gguf").write_bytes(render(document))
    check_gguf(tmp_path / "good.gguf")
    change(document)
    (tmp_path / "bad.gguf").write_bytes(render(document))
    with pytest.raises(BadCheckpoint) as caught:
        check_gguf(tmp_path / "bad.gguf")
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'bad.gguf'}: ")


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_passes(shape: str, tmp_path: Path) -> None:
    header = check_gguf(export(write_shape(tmp_path / shape, shape), tmp_path / "file.gguf"))
    assert header.metadata["general.architecture"] == ("gemma3" if shape == "gemma3" else "gemma4")


@pytest.mark.parametrize(("layers", "portable"), [*((kind, False) for kind in KINDS), ("swa", True)])
def test_every_kind_of_slice_passes(layers: str, portable: bool, pico_e4b: Path, tmp_path: Path) -> None:
    cut(Request("law", layers, str(pico_e4b), output=tmp_path / "slice", portable=portable))
    check_gguf(export(tmp_path / "slice", tmp_path / "slice.gguf"))


@pytest.mark.parametrize("type", ["Q2_K", "Q3_K_M", "Q4_K_M", "Q8_0"])
def test_quantized_files_pass(type: str, tmp_path: Path) -> None:
    folder = write_gemma3(tmp_path / "slice", [SLIDING, FULL])
    check_gguf(quantize(folder, type, tmp_path / "file.gguf", threads=1).path)


def test_the_naive_export_without_a_spacer_is_refused(
    pico_e4b: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp loads it and reads the K/V of the wrong layer without a word."""
    cut(Request("law", "swa", str(pico_e4b), output=tmp_path / "slice"))
    monkeypatch.setattr(export_module, "DIALECTS", {"gemma4": replace(GEMMA4, arrange=as_they_are)})
    with pytest.raises(BadCheckpoint, match="read the K/V of layer 18, but the last sliding layer"):
        check_gguf(export(tmp_path / "slice", tmp_path / "naive.gguf"))


def test_another_architecture_gets_what_holds_for_all(files: dict[str, Document], tmp_path: Path) -> None:
    """No table for it here: the tensors are llama.cpp's to judge, the settings that all share are not."""
    document = files["gemma3"].copy()
    for key in [key for key in document.keys if key.startswith("gemma3.")]:
        document.set(key.replace("gemma3.", "llama."), document.keys.pop(key))
    document.set("general.architecture", Value(STR, b"llama"))
    (tmp_path / "llama.gguf").write_bytes(render(document))
    check_gguf(tmp_path / "llama.gguf")
    document.set("llama.block_count", Value(U32, 600))
    (tmp_path / "llama.gguf").write_bytes(render(document))
    with pytest.raises(BadCheckpoint, match=r"llama\.block_count is 600"):
        check_gguf(tmp_path / "llama.gguf")


def test_header_reads_what_was_written(files: dict[str, Document], tmp_path: Path) -> None:
    document = files["merges"]
    (tmp_path / "file.gguf").write_bytes(render(document))
    header = read_gguf_header(tmp_path / "file.gguf")
    assert header.kinds["gemma3.block_count"] == "u32"
    assert header.kinds["tokenizer.ggml.tokens"] == "[str]"
    assert header.length("tokenizer.ggml.tokens") == len(document.keys["tokenizer.ggml.tokens"].value)
    assert header.length("gemma3.block_count") == header.length("nothing") == 0
    assert [tensor.name for tensor in header.tensors] == list(document.tensors)
    first = header.tensors[0]
    assert header.nbytes == first.start
    raw = (tmp_path / "file.gguf").read_bytes()
    assert raw[first.start :][: first.nbytes] == document.tensors[first.name].data


def test_long_arrays_are_read_on_demand(tmp_path: Path) -> None:
    texts = [f"é{number}".encode() for number in range(3000)]
    numbers = [float(number) for number in range(3000)]
    keys = {"a": Value(9, texts, STR), "b": Value(9, numbers, F32), "c": Value(U32, 3000)}
    (tmp_path / "file.gguf").write_bytes(render(Document(keys, {})))
    header = read_gguf_header(tmp_path / "file.gguf")
    assert dict(header.metadata) == {"a": 3000, "b": 3000, "c": 3000}
    assert [header.length(key) for key in "abc"] == [3000, 3000, 0]
    assert read_texts(tmp_path / "file.gguf", header, "a") == texts
    assert np.array_equal(read_numbers(tmp_path / "file.gguf", header, "b"), numbers)
    assert read_texts(tmp_path / "file.gguf", header, "b") == []
    assert not read_numbers(tmp_path / "file.gguf", header, "a").size


LIES: dict[str, tuple[Callable[[Document], None], str]] = {
    "key twice": (lambda d: d.set("again", Value(U32, 1, name="general.file_type")), "occurs twice"),
    "empty key": (lambda d: d.set("", Value(U32, 1)), "the key '' is empty"),
    "tensor twice": (
        lambda d: d.tensors.update(again=replace(d.tensors["output_norm.weight"], name="output_norm.weight")),
        "occurs twice",
    ),
    "long name": (tensor("output_norm.weight", name="x" * 64), "1 to 63 bytes"),
    "no axis": (tensor("output_norm.weight", shape=()), "has 0 axes"),
    "empty axis": (tensor("output_norm.weight", shape=(256, 0)), "cannot have the shape"),
    "half a block": (tensor("output_norm.weight", type=14, shape=(200,)), "cannot have the shape"),
    "unknown type": (tensor("output_norm.weight", type=99), "ggml type 99"),
    "elsewhere": (tensor("output_norm.weight", offset=2**40), "lies at 1099511627776; expected"),
    "on another": (tensor("blk.0.attn_q.weight", offset=0), "lies at 0; expected"),
    "odd alignment": (lambda d: d.set("general.alignment", Value(U32, 48)), "alignment is 48"),
    "small alignment": (lambda d: d.set("general.alignment", Value(U32, 8)), "alignment is 8"),
    "infinite": (lambda d: d.set("x", Value(F32, float("inf"))), "x is inf"),
    "NaN in an array": (lambda d: d.set("x", Value(9, [1.0, float("nan")], F32)), "x holds a value"),
    "unknown value": (lambda d: d.set("x", Value(9, [], 13)), "array of the unknown type 13"),
}


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_contradict_themselves(lie: str, files: dict[str, Document], tmp_path: Path) -> None:
    change, message = LIES[lie]
    document = files["gemma3"].copy()
    change(document)
    (tmp_path / "bad.gguf").write_bytes(render(document))
    with pytest.raises(BadCheckpoint, match=message) as caught:
        read_gguf_header(tmp_path / "bad.gguf")
    assert str(tmp_path / "bad.gguf") in str(caught.value)


def test_a_header_without_an_end_is_given_up(tmp_path: Path) -> None:
    """A sparse file of a terabyte of empty texts: read to its end, it would take an hour."""
    file = tmp_path / "endless.gguf"
    head = render(Document({"tokenizer.ggml.tokens": Value(9, [], STR)}, {}))
    at = head.index(b"tokenizer.ggml.tokens") + len("tokenizer.ggml.tokens") + 8
    file.write_bytes(head[:at] + (2**36).to_bytes(8, "little"))
    with file.open("r+b") as opened:
        opened.truncate(2**40)
    with pytest.raises(BadCheckpoint, match=r"endless\.gguf"):
        read_gguf_header(file)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(NotFound, match="no such file"):
            check_gguf(path)
