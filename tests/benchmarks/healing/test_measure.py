"""The text that rows are measured on: no document of it is in any row's calibration text."""

import json
from pathlib import Path

import pytest

from benchmarks.healing.measure import Bench
from slices.errors import BadConfig
from slices.measure.heldout import read_verdict
from slices.text.corpus import read_corpus
from tests.slices.heal_fixtures import write_data


def bench(data: Path) -> Bench:
    return Bench(parent=data, data=data, work=data, limit=10**6, threads=1)


def add_heldout(data: Path, domain: str, documents: tuple[str, ...]) -> None:
    with (data / "corpora" / domain / "heldout.jsonl").open("a") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in documents)


def test_seen_documents_do_not_measure(tmp_path: Path) -> None:
    """Of law's own calibration text, and of another domain's, by which a row may be cut."""
    data = write_data(tmp_path, ("biochem", "law"), count=12)
    heldout = read_verdict(data, ["law"])["law"]
    planted = tuple(
        read_corpus([data / "corpora" / domain / "calibration.jsonl"]).documents[0]
        for domain in ("law", "biochem")
    )
    add_heldout(data, "law", planted)
    text = bench(data).text("law")
    assert {window.text for window in text.windows} == set(heldout)


def test_text_that_is_not_held_out_is_refused(tmp_path: Path) -> None:
    data = write_data(tmp_path, ("law",), count=12)
    add_heldout(data, "law", read_corpus([data / "corpora" / "law" / "calibration.jsonl"]).documents * 2)
    with pytest.raises(BadConfig, match="the text of 'law' is not held out"):
        bench(data).text("law")
