"""`mom eval` options: domains, limits, closed choices, and models of a short context."""

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from slices.quant.quantize import quantize
from tests.mom.line import mom
from tests.slices.gguf_fixtures import FULL, SLIDING, write_gemma3, write_manifest

TEXT = "The quiet harbour town sleeps while the fishing boats return with the evening tide. "


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three domains of four documents, each longer than a window."""
    for domain in ("law", "biochem", "general"):
        corpus = tmp_path / "data" / "corpora" / domain
        corpus.mkdir(parents=True)
        lines = [json.dumps({"text": f"{domain} {number}. {TEXT * 30}"}) for number in range(4)]
        (corpus / "heldout.jsonl").write_text("\n".join(lines))
    return tmp_path / "data"


@pytest.fixture
def short_context(tmp_path: Path) -> Path:
    """A GGUF of a slice whose context is 256 tokens."""
    folder = write_gemma3(tmp_path / "short", [SLIDING, FULL], max_position_embeddings=256)
    write_manifest(folder, "short")
    quantize(folder, "Q8_0", threads=1)
    return folder / "short-Q8_0.gguf"


def evaluate(model: Path, data: Path, *options: str) -> "CompletedProcess[str]":
    alone = ("--baseline", "none", "--compare", "never", "--threads", "1", "--json", "-")
    return mom("eval", str(model), "--data", str(data), *alone, *options)


def test_windows_are_shortened_to_a_short_context(short_context: Path, data: Path) -> None:
    done = evaluate(short_context, data, "--domain", "law", "--tasks", "text,probes", "--limit", "2")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "windows" in line]
    assert line.startswith("short-Q8_0 has a context of 256 tokens: the windows of all models are shortened")
    assert "no needle in a haystack of 1,024, 2,048, 4,096, 8,192 tokens" in done.stderr
    report = json.loads(done.stdout)
    assert 16 < report["config"]["window_bytes"] < 1800
    assert (report["config"]["max_context"], report["config"]["needle_lengths"]) == (256, [])
    assert report["slices"]["short-Q8_0"]["domains"]["law"]["documents"] == 2


def test_domains_are_repeated_and_comma_separated(short_context: Path, data: Path) -> None:
    options = ("--domain", "law,biochem", "--domain", "general", "--domain", "law", "--max-bytes", "400")
    report = json.loads(evaluate(short_context, data, *options, "--limit", "3").stdout)
    assert list(report["domains"]) == ["law", "biochem", "general"]
    assert all(domain["documents"] <= 3 for domain in report["domains"].values())


def test_a_domain_in_place_of_a_slice_is_pointed_out(short_context: Path, data: Path) -> None:
    done = evaluate(short_context, data, "biochem", "--domain", "law")
    assert done.returncode == 1
    assert "no slice 'biochem'" in done.stderr
    assert "'biochem' is a domain: did you mean --domain law,biochem?" in done.stderr
    assert "did you mean" not in evaluate(short_context, data, "nothing").stderr


@pytest.mark.parametrize("option", [("--tasks", "mmlu"), ("--compare", "maybe"), ("--limit", "1")])
def test_a_value_outside_a_closed_choice_exits_2(option: tuple[str, str]) -> None:
    assert mom("eval", "law", *option).returncode == 2
