"""`mom inspect FILE.gguf`: the header's figures as JSON and as a table; a damaged file is one line."""

from pathlib import Path

import pytest

from slices.export import export
from tests.mom.line import mom, parsed
from tests.slices.gguf_fixtures import FULL, SLIDING, write_gemma3


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    return export(write_gemma3(folder / "pico", [SLIDING, FULL]), folder / "pico.gguf")


def test_json_has_architecture_layers_types_and_tokenizer(file: Path) -> None:
    figures = parsed("inspect", str(file), "--json")
    assert (figures["architecture"], figures["layers"], figures["hidden_size"]) == ("gemma3", 2, 256)
    assert figures["feed_forward_length"] == [512, 512]
    assert figures["bytes"] == file.stat().st_size
    assert figures["tensors"]["blk.0.ffn_up.weight"] == "BF16"
    assert sum(each["tensors"] for each in figures["types"].values()) == len(figures["tensors"])
    assert set(figures["types"]) == {"BF16", "F32"}
    assert figures["tokenizer"]["tokens"] > 256


def test_a_table_for_people(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = mom("inspect", str(file))
    assert done.returncode == 0, done.stderr
    assert "gemma3, 2 layers" in done.stdout
    assert "BF16" in done.stdout
    assert "tokenizer llama" in done.stdout


def test_a_damaged_file_and_a_domain_are_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "short.gguf").write_bytes(file.read_bytes()[:1000])
    done = mom("inspect", str(tmp_path / "short.gguf"))
    assert done.returncode == 1
    assert "short.gguf" in done.stderr and done.stderr.count("\n") == 1
    assert mom("inspect", str(file), "--domain", "law").returncode == 2
