"""What llama.cpp aborts on or misreads is refused before it sees the file; nothing else is."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slices import export as export_module
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.dialects.gemma4 import GEMMA4
from slices.dialects.table import as_they_are
from slices.errors import BadCheckpoint, NotFound
from slices.export import export
from slices.gguf.arrays import read_numbers, read_texts
from slices.gguf.check import check_gguf
from slices.gguf.header import read_gguf_header
from slices.quant.quantize import quantize
from tests.conftest import E4B_TYPES
from tests.picos import SHAPES, write_gemma4, write_shape
from tests.slices.gguf_document import F32, STR, U32, Document, Value, parse, render
from tests.slices.gguf_fixtures import FULL, SLIDING, tokenizer_json, write_gemma3
from tests.slices.gguf_hazards import HAZARDS, as_llama, number, tensor

KINDS = ["all", "0-23", "0,22,23,24,29,41", "swa", "0-4,6-10", "22,24", "5,22,24", "full", "3", "5"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Document]:
    """A Gemma 3 with either kind of tokenizer, and a Gemma 4 of E4B's shape with an identity layer."""
    folder = tmp_path_factory.mktemp("check")
    three = write_gemma3(folder / "gemma3", [SLIDING, FULL, SLIDING])
    export(three, folder / "gemma3.gguf")
    merged = tokenizer_json(tokenizer_json()["model"]["merges"][::2])
    (three / "tokenizer.json").write_text(json.dumps(merged), encoding="utf-8")
    export(three, folder / "merges.gguf")
    four = write_gemma4(folder / "gemma4", E4B_TYPES, num_kv_shared_layers=18)
    export(four, folder / "gemma4.gguf")
    cut(SliceRequest(domain="law", layers="swa", model=str(four), output=folder / "swa"))
    export(folder / "swa", folder / "spaced.gguf")
    export(write_shape(folder / "26b", "26b"), folder / "experts.gguf")
    return {path.stem: parse(path.read_bytes()) for path in folder.glob("*.gguf")}


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
    cut(
        SliceRequest(
            domain="law", layers=layers, model=str(pico_e4b), output=tmp_path / "slice", portable=portable
        )
    )
    check_gguf(export(tmp_path / "slice", tmp_path / "slice.gguf"))


@pytest.mark.parametrize("type", ["Q2_K", "Q4_K_M"])
def test_quantized_files_pass(type: str, tmp_path: Path) -> None:
    folder = write_gemma3(tmp_path / "slice", [SLIDING, FULL])
    check_gguf(quantize(folder, type, tmp_path / "file.gguf", threads=1).path)


def test_the_naive_export_without_a_identity_layer_is_refused(
    pico_e4b: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp loads it and reads the K/V of the wrong layer without a word."""
    cut(SliceRequest(domain="law", layers="swa", model=str(pico_e4b), output=tmp_path / "slice"))
    monkeypatch.setattr(export_module, "DIALECTS", {"gemma4": replace(GEMMA4, arrange=as_they_are)})
    with pytest.raises(BadCheckpoint, match="read the K/V of layer 18, but the last sliding layer"):
        check_gguf(export(tmp_path / "slice", tmp_path / "naive.gguf"))


def test_another_architecture_gets_what_holds_for_all(files: dict[str, Document], tmp_path: Path) -> None:
    """No table for it here: the tensors are llama.cpp's to judge, the settings that all share are not."""
    document = as_llama(files["gemma3"])
    (tmp_path / "llama.gguf").write_bytes(render(document))
    check_gguf(tmp_path / "llama.gguf")


ANY_ARCHITECTURE: dict[str, tuple[Callable[[Document], None], str]] = {
    "too many layers": (number("block_count", 600), "llama.block_count is 600"),
    "odd heads": (number("attention.key_length", 7), "key_length is 7; expected an even"),
    "groups of no experts": (number("expert_group_count", 2), "0 of 2 groups of 0 experts"),
    "groups in words": (number("expert_group_count", b"two", STR), "is of the type str; expected u32"),
    "experts in words": (number("expert_used_count", b"two", STR), "is of the type str; expected u32"),
    "whole numbers": (
        tensor("blk.0.attn_k.weight", type=26, data=bytes(4 * 256 * 128)),
        "attn_k.weight' has the ggml type 26",
    ),
    "a norm in blocks": (tensor("output_norm.weight", type=12, data=bytes(144)), "the ggml type 12"),
}


@pytest.mark.parametrize("hazard", ANY_ARCHITECTURE)
def test_hazards_of_any_architecture(hazard: str, files: dict[str, Document], tmp_path: Path) -> None:
    change, message = ANY_ARCHITECTURE[hazard]
    document = as_llama(files["gemma3"])
    change(document)
    (tmp_path / "llama.gguf").write_bytes(render(document))
    with pytest.raises(BadCheckpoint, match=re.escape(message)):
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
    "another key to llama.cpp": (
        lambda d: d.set("x", Value(U32, 600, name="gemma3.block_count\0")),
        "holds a NUL",
    ),
    "another text to llama.cpp": (
        lambda d: d.set("general.architecture", Value(STR, b"gemma3\0")),
        "holds a NUL",
    ),
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


@pytest.mark.parametrize("count", [2**22, 2**36])
def test_a_header_without_an_end_is_given_up(count: int, tmp_path: Path) -> None:
    """A sparse file of a terabyte of empty texts: read to its end, it would take an hour."""
    keys = {f"key{number}": Value(9, [], STR) for number in range(64)}
    head = render(Document(keys, {}))
    file = tmp_path / "endless.gguf"
    at = head.index(b"key0") + len("key0") + 8
    file.write_bytes(head[:at] + count.to_bytes(8, "little"))
    with file.open("r+b") as opened:
        opened.truncate(2**40)
    with pytest.raises(BadCheckpoint, match=r"endless\.gguf"):
        read_gguf_header(file)


def test_what_is_no_file_is_reported(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(NotFound, match="no such file"):
            check_gguf(path)
