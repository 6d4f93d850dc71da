"""MODEL as a folder, a name or a hub id: found, or refused in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from slices.errors import NotFound
from slices.files.safetensors_header import read_header
from slices.model_ref import locate, open_model

REVISION = "0123456789abcdef0123456789abcdef01234567"


def cached(cache: Path, name: str, parent: Path, links: bool = True) -> Path:
    """Lay `parent` out as huggingface_hub caches it: blobs, a snapshot of links to them, refs/main."""
    home = cache / f"models--{name.replace('/', '--')}"
    snapshot = home / "snapshots" / REVISION
    for folder in (snapshot, home / "blobs", home / "refs"):
        folder.mkdir(parents=True)
    (home / "refs" / "main").write_text(REVISION)
    for number, file in enumerate(sorted(parent.iterdir())):
        target = home / "blobs" / f"{number:064x}" if links else snapshot / file.name
        target.write_bytes(file.read_bytes())
        if links:
            (snapshot / file.name).symlink_to(Path("../../blobs") / target.name)
    return snapshot


def mom(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line offline, with this hub cache, from an empty folder."""
    environment = {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "HF_HOME": str(cache / "home")}
    return subprocess.run(
        [sys.executable, "-m", "mom", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


@pytest.mark.parametrize("links", [True, False], ids=["blobs", "files"])
def test_a_cached_hub_id_is_sliced_offline(pico_gemma3: Path, tmp_path: Path, links: bool) -> None:
    cached(tmp_path / "hub", "org/pico", pico_gemma3, links)
    out = tmp_path / "out"
    arguments = ["slice", "--domain", "law", "--layers", "0-3", "--model", "org/pico", "-o", str(out)]
    done = mom(tmp_path / "hub", *arguments)
    assert done.returncode == 0, done.stderr
    before = {entry.name: entry for entry in read_header(pico_gemma3 / "model.safetensors")[0]}
    for entry in read_header(out / "model.safetensors")[0]:
        ours, theirs = (
            e.file.read_bytes()[e.start : e.start + e.nbytes] for e in (entry, before[entry.name])
        )
        assert ours == theirs


def test_an_uncached_hub_id_is_refused_in_one_line(tmp_path: Path) -> None:
    done = mom(tmp_path / "hub", "inspect", "org/unknown")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert (
        "no model 'org/unknown': there is no such folder, and the download from the hub failed" in done.stderr
    )


def test_a_half_downloaded_snapshot_is_refused(pico_gemma3: Path, tmp_path: Path) -> None:
    """The config is there, the weights are not: the link leads nowhere."""
    snapshot = cached(tmp_path / "hub", "org/pico", pico_gemma3)
    (snapshot / "model.safetensors").resolve().unlink()
    arguments = ["slice", "--domain", "law", "--layers", "0-3", "--model", "org/pico"]
    done = mom(tmp_path / "hub", *arguments, "-o", str(tmp_path / "out"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "holds no weights" in done.stderr


@pytest.mark.parametrize(
    "reference",
    [
        "nobody",
        "a b/c d",
        "org/" + "x" * 500,
        "../nowhere/model",
        "/nowhere",
        "org/name/more",
        "",
        "a\0b",
        "-/-",
    ],
)
def test_what_is_no_model_is_refused(reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(NotFound, match="no model"):
        open_model(reference)


def test_a_folder_and_a_name(pico_gemma3: Path, mom_home: Path) -> None:
    assert locate(str(pico_gemma3)) == pico_gemma3
    (mom_home / "models").mkdir(parents=True)
    (mom_home / "models" / "pico").symlink_to(pico_gemma3)
    assert open_model("pico").entries
