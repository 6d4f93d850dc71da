"""The script behind docs/results.md, on a pico: a row raw and healed, and one without sharing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.slices.heal_fixtures import parent_gemma4, write_data


@pytest.mark.slow
def test_rows_of_a_pico(tmp_path: Path) -> None:
    write_data(tmp_path, ("biochem", "law", "computing"))
    parent = parent_gemma4(tmp_path / "parent")
    rows = ["plain-law-Q4_K_M", "swa-law", "swa-law-unshared-noise", "swa-law-unshared-donor"]
    rows += ["choice-law-chance-1"]
    command = [
        sys.executable,
        "-m",
        "benchmarks.healing.run",
        "--data",
        str(tmp_path),
        "--model",
        str(parent),
        "--steps",
        "10",
    ]
    command += ["--limit", "1500", "--threads", "1", "--work", str(tmp_path / "work"), *rows]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out.json")], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.json").is_file(), done.stdout
    found = {each["row"]["name"]: each for each in json.loads((tmp_path / "out.json").read_text())["rows"]}
    assert list(found) == rows, done.stdout
    plain = found.pop("plain-law-Q4_K_M")["plain"]
    file = next(iter(found.values()))["raw"]["file"]
    assert (
        abs(plain["bits_over_parent"]["value"]) < 0.01 * plain["parent"]["value"]
    )  # the whole parent, but for rounding
    assert abs(file["bits_over_parent"]["value"]) > 3 * abs(plain["bits_over_parent"]["value"])
    assert plain["parent"] == file["parent"]
    for each in found.values():
        assert ("healed" in each) != ("Healing made no better slice" in each.get("not_healed", ""))
        assert set(each["raw"]["domains"]) >= {each["row"]["domain"]}
        assert 0 <= each["raw"]["file"]["writing"]["brackets"]["value"] <= 1
    assert any("healed" in each for each in found.values())
    kls = [found[name]["raw"]["domains"]["law"]["kl"]["value"] for name in rows[1:4]]
    assert len(set(kls)) == 3
