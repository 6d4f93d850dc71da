"""What is written is what was planned, byte for byte, whatever the file system does meanwhile."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from slices.architecture.anatomy import read_anatomy
from slices.checkpoint import open_checkpoint
from slices.cut import extract as extract_module
from slices.cut import gather as gather_module
from slices.cut import schedule as schedule_module
from slices.cut.extract import extract
from slices.cut.pipeline import cut, plan_cut
from slices.cut.plan import Plan, Selection, TensorPlan, make_plan
from slices.cut.request import SliceRequest
from slices.cut.schedule import CopyRange, FillRange, schedule
from slices.errors import BadCheckpoint
from slices.files.safetensors_header import Entry, read_header
from slices.files.safetensors_writer import Slot, lay_out, write, write_all
from tests.slices.reference import assert_right


def store(folder: Path, tensors: dict[str, np.ndarray]) -> dict[str, Entry]:
    """A file of these arrays, as BF16 where they are uint16 and F32 where float32."""
    kinds = {"uint16": "BF16", "float32": "F32", "uint8": "U8"}
    slots = [Slot(name, kinds[str(a.dtype)], a.shape) for name, a in tensors.items()]

    def fill(slot: Slot, out: BinaryIO) -> None:
        write_all(out, tensors[slot.name].tobytes())

    write(folder, lay_out(slots), fill)
    return {entry.name: entry for entry in read_header(folder / "model.safetensors")[0]}


def planned(tensors: list[TensorPlan], shard_bytes: int = 10**9) -> Plan:
    """A plan of these tensors and nothing else that matters."""
    layout = lay_out([tensor.slot for tensor in tensors], shard_bytes)
    rest: dict[str, Any] = dict.fromkeys(Plan.__dataclass_fields__)
    return Plan(**(rest | {"tensors": tuple(tensors), "layout": layout}))


def written(plan: Plan, folder: Path) -> int:
    """Extract, check every byte, and return the bytes that progress reported."""
    folder.mkdir(exist_ok=True)
    done = [0]
    extract(plan, folder, lambda stage, written, total: done.append(written))
    assert_right(plan, folder)
    return done[-1]


def picked(entry: Entry, rows: list[int] | None, columns: list[int] | None = None) -> TensorPlan:
    shape = list(entry.shape)
    for axis, kept in ((0, rows), (1, columns)):
        shape[axis] = shape[axis] if kept is None else len(kept)
    kept_rows, kept_columns = (None if k is None else np.array(k, np.int64) for k in (rows, columns))
    return TensorPlan(
        slot=Slot(entry.name, entry.dtype, tuple(shape)), source=entry, rows=kept_rows, columns=kept_columns
    )


def whole(entry: Entry) -> TensorPlan:
    return TensorPlan(Slot(entry.name, entry.dtype, entry.shape), entry)


@pytest.fixture
def numbers(tmp_path: Path) -> dict[str, Entry]:
    """Five tensors in one file, of finite numbers."""
    (tmp_path / "in").mkdir()
    random = np.random.default_rng(3)
    shapes = {"a": (5,), "b": (40, 30), "c": (7, 3), "d": (2, 3, 4), "e": (600, 1200)}
    return store(tmp_path / "in", {n: random.integers(0, 0x7F00, s, np.uint16) for n, s in shapes.items()})


def test_neighbours_become_one_copy(numbers: dict[str, Entry]) -> None:
    """Tensors that stay side by side are one copy, also over the end of what is dropped in between."""
    tensors = [whole(numbers[name]) for name in "abde"]
    tensors.insert(3, TensorPlan(Slot("zero", "BF16", (8,)), None))
    shard = planned(tensors).layout.shards[0]
    operations = list(schedule(shard, tensors))
    start, size = len(shard.header), {name: entry.nbytes for name, entry in numbers.items()}
    assert [(type(operation), operation.target) for operation in operations] == [
        (CopyRange, start),
        (CopyRange, start + size["a"] + size["b"]),
        (FillRange, start + size["a"] + size["b"] + size["d"]),
        (CopyRange, start + size["a"] + size["b"] + size["d"] + 16),
    ]
    assert [operation.nbytes for operation in operations if isinstance(operation, CopyRange)] == [
        size["a"] + size["b"],
        size["d"],
        size["e"],
    ]


ROWS = {"none": None, "run": [3, 4, 5], "apart": [0, 2, 39], "zeros": [-1, 0, 1, -1, -1, 7, -1]}


@pytest.mark.parametrize("columns", [None, [0, 1, 2, 29], [5, -1, -1, 6, 7, -1], [-1]])
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("block", [1, 100, 10**6])
def test_rows_and_columns(
    numbers: dict[str, Entry],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[int] | None,
    columns: list[int] | None,
    block: int,
) -> None:
    """Any rows and columns in blocks of any size, next to copies, in several shards."""
    monkeypatch.setattr(gather_module, "BLOCK", block)
    monkeypatch.setattr(gather_module, "_GAP", block)
    monkeypatch.setattr(extract_module, "_RELEASE_EVERY", block)
    monkeypatch.setattr(extract_module, "_total_memory", lambda: 0 if block < 1000 else 2**40)
    tensors = [whole(numbers["a"]), picked(numbers["b"], rows, columns), whole(numbers["e"])]
    tensors += [
        TensorPlan(Slot("zeros", "F32", (3, 5)), None),
        TensorPlan(Slot("ones", "BF16", (9,)), None, ones=True),
    ]
    for number, shard_bytes in enumerate((10**9, 1000, 1)):
        plan = planned(tensors, shard_bytes)
        assert written(plan, tmp_path / f"out{number}") == plan.nbytes


def test_many_scattered_columns(numbers: dict[str, Entry], tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    columns = sorted(random.choice(1200, 700, replace=False).tolist())
    written(planned([picked(numbers["e"], None, [*columns, -1])]), tmp_path / "out")
    written(planned([picked(numbers["e"], [1, 5, -1, 599], columns)]), tmp_path / "out2")


def test_rows_of_more_than_two_axes(numbers: dict[str, Entry], tmp_path: Path) -> None:
    written(planned([picked(numbers["d"], [1])]), tmp_path / "out")


@pytest.mark.parametrize("reason", [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM])
def test_where_the_kernel_does_not_copy(
    numbers: dict[str, Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    """A file system may refuse at once or half way through."""
    monkeypatch.setattr(schedule_module, "CHUNK", 1000)
    copy, calls = os.copy_file_range, []

    def refusing(source: int, target: int, count: int, start: int, at: int) -> int:
        calls.append(count)
        if len(calls) % 2 == 0:
            raise OSError(reason, os.strerror(reason))
        return copy(source, target, min(count, 300), start, at)

    monkeypatch.setattr(os, "copy_file_range", refusing)
    written(planned([whole(entry) for entry in numbers.values()]), tmp_path / "out")
    assert calls


def test_where_there_is_no_kernel_copy(
    numbers: dict[str, Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "copy_file_range")
    written(planned([whole(entry) for entry in numbers.values()]), tmp_path / "out")


@pytest.mark.parametrize("bits", [0x7F80, 0xFF80, 0x7FC0, 0xFFFF, 0x7F81])
def test_not_a_number_is_named(tmp_path: Path, bits: int) -> None:
    (tmp_path / "in").mkdir()
    data = np.full((50, 8), 0xFF7F, np.uint16)  # the most negative finite number
    data[40, 3] = bits
    entry = store(tmp_path / "in", {"model.bad": data})["model.bad"]
    (tmp_path / "out").mkdir()
    written(planned([picked(entry, list(range(40)))]), tmp_path / "out")  # the number is not kept
    (tmp_path / "out2").mkdir()
    with pytest.raises(BadCheckpoint, match=r"'model\.bad' holds NaN or infinity"):
        extract(planned([picked(entry, list(range(41)))]), tmp_path / "out2")


def test_float32_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    data = np.array([[1.5, -2.0], [np.nan, -np.inf]], np.float32)
    entry = store(tmp_path / "in", {"x": data})["x"]
    written(planned([picked(entry, [0])]), tmp_path / "out")
    with pytest.raises(BadCheckpoint, match="NaN or infinity"):
        written(planned([picked(entry, [1])]), tmp_path / "out2")


def test_a_source_replaced_after_planning_is_noticed(numbers: dict[str, Entry], tmp_path: Path) -> None:
    plan = planned([whole(entry) for entry in numbers.values()])
    store(tmp_path / "in", {"a": np.zeros(5, np.uint16), "b": np.zeros((40, 30), np.uint16)})
    (tmp_path / "out").mkdir()
    with pytest.raises(BadCheckpoint, match="changed since its header was read"):
        extract(plan, tmp_path / "out")


@pytest.mark.parametrize("rows", [None, [0, 1]], ids=["copied", "gathered"])
@pytest.mark.parametrize("change", ["cut short", "changed while it was read"])
def test_a_source_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[int] | None, change: str
) -> None:
    """The first operation written sets off the change; nothing is left behind."""
    (tmp_path / "in").mkdir()
    random = np.random.default_rng(3)
    entries = store(tmp_path / "in", {n: random.integers(0, 99, (64, 512), np.uint16) for n in "abcdefgh"})
    monkeypatch.setattr(schedule_module, "CHUNK", 4096)
    monkeypatch.setattr(gather_module, "BLOCK", 4096)
    file = tmp_path / "in" / "model.safetensors"

    def disturb(stage: str, done: int, total: int) -> None:
        if change == "cut short":
            os.truncate(file, 10_000)
        else:
            with file.open("r+b") as out:
                out.seek(9000)
                out.write(b"x")

    tensors = [picked(entry, rows) if rows else whole(entry) for entry in entries.values()]
    (tmp_path / "out").mkdir()
    with pytest.raises(BadCheckpoint, match=change):
        extract(planned(tensors), tmp_path / "out", disturb)


def test_a_full_disk_leaves_nothing(pico_e4b: Path, tmp_path: Path) -> None:
    """In a child process whose files may not grow past 200 kB."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "from mom.cli import main; sys.argv = ['mom', *sys.argv[1:]]; main()"
    )
    out = tmp_path / "out"
    arguments = ["slice", "--domain", "law", "--layers", "all", "--model", str(pico_e4b), "-o", str(out)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"{out} could not be written: File too large" in done.stderr
    assert list(tmp_path.glob("*out*")) == []


def test_no_torch_is_loaded(pico_e4b: Path, tmp_path: Path) -> None:
    """Slicing, vocabulary included, loads none of the heavy packages and keeps to its memory."""
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog.")
    code = (
        "import sys; from mom.cli import app; app(sys.argv[1:], standalone_mode=False)\n"
        "heavy = [m for m in ('torch', 'transformers', 'ray', 'llama_cpp') if m in sys.modules]\n"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(heavy, int(peak.split()[1]) // 1024)"
    )
    arguments = ["slice", "--domain", "law", "--layers", "swa", "--model", str(pico_e4b)]
    arguments += ["--vocab", "450", "--corpus", str(tmp_path / "text.txt"), "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    heavy, peak = done.stdout.splitlines()[-1].rsplit(" ", 1)
    assert heavy == "[]"
    assert int(peak) < 200  # MB


@pytest.mark.parametrize("layers", ["all", "swa", "0-23", "22,23,40,41"])
@pytest.mark.parametrize("vocab", ["all", "450"])
def test_slices_are_as_planned(pico_e4b: Path, tmp_path: Path, layers: str, vocab: str) -> None:
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog.")
    request = SliceRequest(
        domain="law",
        layers=layers,
        model=str(pico_e4b),
        vocab=vocab,
        corpus=(tmp_path / "text.txt",),
        output=tmp_path / "out",
    )
    _, plan, _ = plan_cut(request)
    assert cut(request).bytes == plan.nbytes
    assert_right(plan, tmp_path / "out")


def test_the_identity_is_the_parent(pico_e4b: Path, tmp_path: Path) -> None:
    """All layers, all rows: every tensor that is executed, byte for byte, in one copy per gap."""
    cut(SliceRequest(domain="law", layers="all", model=str(pico_e4b), output=tmp_path / "out"))
    before = {entry.name: entry for entry in open_checkpoint(pico_e4b).entries}
    after = open_checkpoint(tmp_path / "out").entries
    assert len(after) == len(before)
    for entry in after:
        old = before[entry.name]
        assert entry.shape == old.shape
        ours, theirs = (e.file.read_bytes()[e.start : e.start + e.nbytes] for e in (entry, old))
        assert ours == theirs


def test_shards_of_a_big_slice(pico_e4b: Path, tmp_path: Path) -> None:
    """More than one file: within the limit, with an index, and loadable as such."""
    checkpoint = open_checkpoint(pico_e4b)
    plan = make_plan(checkpoint, read_anatomy(checkpoint.config), Selection(tuple(range(24))))
    sharded = replace(plan, layout=lay_out([tensor.slot for tensor in plan.tensors], 200_000))
    assert len(sharded.layout.shards) > 2
    for shard in sharded.layout.shards:  # a tensor that is bigger has a shard of its own
        assert len(shard.slots) == 1 or sum(slot.nbytes for slot in shard.slots) <= 200_000
    assert written(sharded, tmp_path / "out") == sharded.nbytes
    (tmp_path / "out" / "config.json").write_text(json.dumps(dict(plan.config)))
    assert len(open_checkpoint(tmp_path / "out").entries) == len(plan.tensors)
