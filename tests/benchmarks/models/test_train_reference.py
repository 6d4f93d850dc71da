"""The reference model: E4B's structure, the same bits from the same seed, also after a kill."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slices.architecture.anatomy import read_anatomy
from slices.checkpoint import open_checkpoint
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.export import export
from tests.paths import ROOT
from tests.picos import load
from tests.slices.heal_fixtures import write_data

TINY = ["--hidden", "32", "--rows", "400", "--context", "32", "--window", "8", "--ple", "8", "--heads", "2"]
TINY += ["--head", "8", "--batch", "2", "--threads", "1", "--every", "4", "--steps", "12", "--warmup", "2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), ("law", "general"), 40)


def command(data: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "benchmarks.models.train_reference",
        "--data",
        str(data),
        "-o",
        str(out),
        *TINY,
        *more,
    ]


def trained(data: Path, out: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(data, out, *more), capture_output=True, text=True, check=False, cwd=ROOT)


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_a_killed_training_goes_on_to_the_same_bits(data: Path, tmp_path: Path) -> None:
    """And what comes out has E4B's structure, learned something, and can be cut and exported."""
    whole = trained(data, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    child = subprocess.Popen(command(data, tmp_path / "killed"), env=dict(os.environ), cwd=ROOT)
    state = tmp_path / ".killed.training" / "run.json"
    deadline = time.monotonic() + 120
    while not state.is_file():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "killed").exists()
    assert trained(data, tmp_path / "killed").returncode == 0
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    assert not state.parent.exists()
    _has_the_structure(tmp_path / "whole")
    curve = json.loads((tmp_path / "whole" / "training.json").read_text())["curve"]
    assert [point["step"] for point in curve] == [4, 8, 12]
    assert curve[-1]["loss"] < curve[0]["loss"]
    cut(SliceRequest(domain="law", layers="swa", model=str(tmp_path / "whole"), output=tmp_path / "slice"))
    load(tmp_path / "slice")
    assert export(tmp_path / "slice", tmp_path / "slice.gguf").is_file()


def _has_the_structure(folder: Path) -> None:
    anatomy = read_anatomy(open_checkpoint(folder).config)
    assert anatomy.full == [5, 11, 17, 23, 29, 35, 41]
    assert len(anatomy.sliding) == 35
    assert [layer.index for layer in anatomy.layers if layer.shared] == list(range(24, 42))
    assert anatomy.donors == {"sliding_attention": 22, "full_attention": 23}
    assert {layer.ffn for layer in anatomy.layers} == {4 * anatomy.dims.hidden}
    assert anatomy.layers[5].head_dim == 2 * anatomy.layers[4].head_dim
    assert anatomy.dims.ple > 0


def test_nan_stops_with_the_step(data: Path, tmp_path: Path) -> None:
    done = trained(data, tmp_path / "nan", "--rate", "1e30", "--warmup", "0")
    assert done.returncode == 1
    assert "the loss is nan" in done.stderr
    assert not (tmp_path / "nan").exists()


def test_an_existing_result_and_missing_data_are_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert "already exists" in trained(data, tmp_path / "there").stderr
    assert "holds no corpora/<domain>/calibration.jsonl" in trained(tmp_path, tmp_path / "new").stderr
