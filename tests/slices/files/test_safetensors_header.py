"""Files that lie are refused, and the message names the file and what is wrong."""

import json
from pathlib import Path
from typing import BinaryIO

import pytest

from slices.checkpoint import open_checkpoint
from slices.errors import BadCheckpoint, NotFound
from slices.files.safetensors_header import read_header
from slices.files.safetensors_writer import Slot, lay_out, write, write_all

GOOD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def file_of(folder: Path, header: object, data: bytes = bytes(8), length: int | None = None) -> Path:
    body = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes((len(body) if length is None else length).to_bytes(8, "little") + body + data)
    return path


def test_good_file(tmp_path: Path) -> None:
    entries, digest = read_header(file_of(tmp_path, GOOD))
    assert [(e.name, e.shape, e.nbytes) for e in entries] == [("a", (2,), 8)]
    assert len(digest) == 64


@pytest.mark.parametrize(
    ("header", "data", "match"),
    [
        (GOOD, b"", "cut short"),
        (GOOD, bytes(9), "no tensor owns"),
        (b"{,", bytes(8), "not valid JSON"),
        (b"[]", bytes(8), "expected a JSON object"),
        (b"\xff\xfe", bytes(8), "not valid JSON"),
        (b'{"a":1,"a":2}', bytes(8), "'a' occurs twice"),
        (b"[" * 100_000, b"", "nested too deeply"),
        ({"a": 3}, bytes(8), "'a'.*no valid dtype"),
        ({"a": GOOD["a"] | {"dtype": "Q4"}}, bytes(8), "no valid dtype"),
        ({"a": GOOD["a"] | {"shape": [-2]}}, bytes(8), "no valid dtype"),
        ({"a": GOOD["a"] | {"shape": [3]}}, bytes(8), "takes 12 bytes"),
        ({"a": GOOD["a"] | {"shape": [2**40, 2**40]}}, bytes(8), "takes"),
        ({"a": GOOD["a"] | {"shape": [2**47] * 100_000}}, bytes(8), "no valid dtype"),
        ({"a": GOOD["a"] | {"shape": [2.0]}}, bytes(8), "no valid dtype"),
        ({"a": GOOD["a"] | {"shape": [True, 2]}}, bytes(8), "no valid dtype"),
        ({"a": GOOD["a"] | {"data_offsets": [0, 10**400]}}, bytes(8), "no valid dtype"),
        ({"a": GOOD["a"] | {"data_offsets": [8, 0]}}, bytes(8), "but its offsets span"),
        ({"x" * 10**6: GOOD["a"]}, bytes(8), "'x{40}...', has 1,000,000 characters"),
        (b'{"\\ud800":1}', bytes(8), "not valid JSON.*surrogates"),
        (b'{"a":' + b"9" * 5000 + b"}", bytes(8), "not valid JSON"),
        (
            json.dumps({str(i): 1 for i in range(50_000)}).encode()[:-1] + b',"7":1}',
            bytes(8),
            "'7' occurs twice",
        ),
        ({"a": GOOD["a"] | {"data_offsets": [8, 16]}}, bytes(16), "leaves a gap"),
        ({"a": GOOD["a"], "b": GOOD["a"]}, bytes(8), "overlaps"),
    ],
)
def test_lies_are_named(tmp_path: Path, header: object, data: bytes, match: str) -> None:
    with pytest.raises(BadCheckpoint, match=rf"model\.safetensors.*{match}"):
        read_header(file_of(tmp_path, header, data))


@pytest.mark.parametrize("length", [0, 10**6, 2**63])
def test_lying_length(tmp_path: Path, length: int) -> None:
    with pytest.raises(BadCheckpoint, match="stated length"):
        read_header(file_of(tmp_path, GOOD, length=length))


def test_short_file(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"abc")
    with pytest.raises(BadCheckpoint, match="cut short"):
        read_header(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "shard",
    ["../model.safetensors", "/etc/passwd", "model.bin", "a\0.safetensors", "x" * 5000 + ".safetensors"],
)
def test_index_may_not_leave_its_folder(tmp_path: Path, shard: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gemma3_text"}')
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(BadCheckpoint, match=r"bare \.safetensors file name"):
        open_checkpoint(tmp_path)


def test_missing_shard_and_config(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no config\.json"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}')
    with pytest.raises(BadCheckpoint, match="missing"):
        open_checkpoint(tmp_path)


def test_layout_is_exact_and_sharded(tmp_path: Path) -> None:
    """Shards hold whole tensors up to the limit; safetensors reads them; the size is known beforehand."""
    from safetensors import safe_open

    slots = [Slot("a", "F32", (3, 2)), Slot("b", "BF16", (5,)), Slot("c", "F32", (100,))]
    layout = lay_out(slots, shard_bytes=40)
    assert [[slot.name for slot in shard.slots] for shard in layout.shards] == [["a", "b"], ["c"]]

    def fill(slot: Slot, out: BinaryIO) -> None:
        write_all(out, b"\x01" * slot.nbytes)

    write(tmp_path, layout, fill)
    written = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert written == layout.nbytes
    with safe_open(tmp_path / "model-00001-of-00002.safetensors", "pt") as file:
        assert file.get_tensor("a").shape == (3, 2)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"]["c"] == "model-00002-of-00002.safetensors"
