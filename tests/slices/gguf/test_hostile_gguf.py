"""Hostile GGUFs end in an error that names the file, or run; who opens them outlives them all."""

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest

from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.errors import BadCheckpoint, RunFailed, SliceError
from slices.export import export
from slices.quant.quantize import quantize
from slices.runtimes.open import open_runtime
from tests.picos import calm, write_gemma4, write_shape
from tests.slices.gguf_document import Document, parse, render
from tests.slices.gguf_fixtures import FULL, SLIDING, tokenizer_json, write_gemma3
from tests.slices.gguf_hazards import as_llama
from tests.slices.gguf_mutations import mutated

TEXT = "def add(a, b): return a + b  # naïve, 東京 🙂"
DIED = re.compile(r"llama\.cpp ended its process with (SIG\w+): (.*)")


@pytest.fixture(scope="module")
def goods(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    """Both families: bf16 and quantized, both tokenizers, an identity layer, experts; and another family."""
    folder = tmp_path_factory.mktemp("goods")
    three = write_gemma3(folder / "gemma3", [SLIDING, FULL, SLIDING])
    files = [export(three, folder / "gemma3.gguf")]
    files += [quantize(three, type, folder / f"{type}.gguf", threads=1).path for type in ("Q4_K_M", "Q2_K")]
    merged = tokenizer_json(tokenizer_json()["model"]["merges"][::2])
    (three / "tokenizer.json").write_text(json.dumps(merged), encoding="utf-8")
    files.append(export(three, folder / "merges.gguf"))
    types = [SLIDING, SLIDING, FULL, SLIDING, SLIDING, FULL]
    four = calm(write_gemma4(folder / "four", types, num_kv_shared_layers=3, hidden_size=256))
    files += [export(four, folder / "four.gguf"), quantize(four, "Q4_K_M", folder / "small.gguf").path]
    cut(SliceRequest(domain="law", layers="swa", model=str(four), output=folder / "swa"))
    files.append(export(folder / "swa", folder / "spaced.gguf"))
    files.append(export(calm(write_shape(folder / "26b", "26b")), folder / "experts.gguf"))
    documents = [parse(file.read_bytes()) for file in files]
    return [*documents, as_llama(documents[0])]


def survive(good: Document, path: Path, seed: int) -> tuple[str, str]:
    """Open a mutated file: what became of it, and what was changed. Anything unforeseen fails."""
    raw, what = mutated(good, seed)
    path.write_bytes(raw)
    started = time.monotonic()
    try:
        runtime = open_runtime(path.parent, Path(path.name), threads=1, max_model_len=256)
        found = runtime.logprobs(runtime.encode(TEXT))
        runtime.close()
    except SliceError as error:
        assert str(path) in str(error), what
        return outcome(error), what
    finally:
        assert time.monotonic() - started < 60, what
        path.unlink()
    assert len(found) > 1, what
    assert np.isfinite(found).all(), what
    return "opened", what


def outcome(error: SliceError) -> str:
    """Who refused the file, and of what the child died, if it did."""
    died = DIED.search(str(error))
    if died:
        return f"died: {died[1]} {re.sub(r'^.*/', '', died[2])}"
    if isinstance(error, BadCheckpoint):
        return "refused by the check"
    assert isinstance(error, RunFailed)
    return "refused when tried out"


def survive_all(goods: list[Document], folder: Path, seeds: range) -> dict[str, list[str]]:
    """What was changed, by what became of it."""
    outcomes: dict[str, list[str]] = {}
    for seed in seeds:
        try:
            found, what = survive(goods[seed % len(goods)], folder / f"{seed}.gguf", seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        outcomes.setdefault(found, []).append(f"{seed}, {what}")
    return outcomes


def test_unharmed_files_are_opened(goods: list[Document], tmp_path: Path) -> None:
    for good in goods:
        (tmp_path / "good.gguf").write_bytes(render(good))
        runtime = open_runtime(tmp_path, Path("good.gguf"), threads=1, max_model_len=256)
        assert np.isfinite(runtime.logprobs(runtime.encode(TEXT))).all()
        runtime.close()


def test_mutated_files(goods: list[Document], tmp_path: Path) -> None:
    """150 of them; some mutations harm nothing that matters, so there must be both kinds of end."""
    outcomes = survive_all(goods, tmp_path, range(150))
    assert len(outcomes["opened"]) > 10, outcomes
    assert len(outcomes["refused by the check"]) > 50, outcomes


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_2000_mutated_files(
    goods: list[Document], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = survive_all(goods, tmp_path, range(1000, 3000))
    with capsys.disabled():
        print("\n2,000 mutated GGUFs:")
        for name, changes in sorted(outcomes.items()):
            print(f"  {len(changes):5} {name}{f': {changes}' if name.startswith('died') else ''}")
