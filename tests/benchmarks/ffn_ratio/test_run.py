"""The FFN-ratio benchmark on picos: what is made, measured, kept and compared, not what comes out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from benchmarks.ffn_ratio import findings, measure
from benchmarks.ffn_ratio.findings import judged, paired
from benchmarks.ffn_ratio.measure import Bench, run_model
from benchmarks.ffn_ratio.models import expand, from_checkpoint
from benchmarks.ffn_ratio.padded_quant import padded_copy, through
from benchmarks.ffn_ratio.text import calibration, held_text
from benchmarks.ffn_ratio.trials import EXPERIMENTS, Trial
from benchmarks.models.smollm2 import halves, torch_name
from benchmarks.models.toy_gemma4 import Toy, ensure_toy
from benchmarks.tables.render import experiments_table
from slices.demo_model import to_bf16
from slices.export import export
from slices.gguf.header import read_gguf_header
from slices.measure.predictor import Ratio, advise_layers
from slices.measure.track_record import track_record
from slices.quant.quantizer import make_params, run_quantizer
from slices.quant.recipe import make_recipe
from slices.runtimes.llama_runtime import LlamaRuntime
from tests.slices.gguf_fixtures import FULL, SAMPLES, SLIDING, write_gemma3

TINY = Toy(rows=420, hidden=256, layers=12, text_bytes=4000, context=24, batch=1, steps=2, warmup=1)
TEXT = " ".join(SAMPLES[name] for name in ("prose", "code", "french", "formula"))


@pytest.fixture(scope="module")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 320, which 256 does not divide, and of 512."""
    folder = tmp_path_factory.mktemp("pico")
    return write_gemma3(folder / "pico", [SLIDING, FULL], hidden_size=320, intermediate_size=512)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two domains of a few documents."""
    for domain in ("computing", "law"):
        folder = tmp_path / "data" / "corpora" / domain
        folder.mkdir(parents=True)
        for part in ("heldout", "calibration"):
            lines = [
                json.dumps({"text": f"{domain} {part} {n}: {TEXT[n * 9 : n * 9 + 250]}"}) for n in range(4)
            ]
            (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "data"


def row(name: str, kl: list[float], tokens: list[int]) -> dict[str, Any]:
    """As much of a row as a comparison reads."""
    return {
        "model": "m", "recipe": {"name": name}, "data": "d", "bytes": 100,
        "documents": {"kl": kl, "tokens": tokens},
    }  # fmt: skip


def test_pairs_are_compared_by_document() -> None:
    """What varies between documents alike in both rows is no error of their difference."""
    rows = [
        row("Q2_K", [10.0, 40.0, 9.0], [10, 10, 10]),
        row("Q2_K, imatrix", [9.0, 39.0, 8.0], [10, 10, 10]),
    ]
    (found,) = paired(rows)
    assert (found["row"], found["against"]) == ("Q2_K, imatrix", "Q2_K")
    assert found["difference"]["value"] == pytest.approx(-0.1)
    assert found["difference"]["stderr"] == pytest.approx(0.0, abs=1e-12)
    assert paired([rows[0], rows[1] | {"data": "another text"}]) == []


def test_the_verdict_bears_on_some_types_only() -> None:
    danger, safe = advise_layers([4.0] * 12, 5 / 6), advise_layers([2.67] * 30, 0.0)
    assert judged(danger, "Q2_K", Ratio(9.0, 0.1)) == ("danger", True)
    assert judged(danger, "Q2_K", Ratio(1.1, 0.01)) == ("danger", False)
    assert judged(safe, "Q2_K", Ratio(1.1, 0.01)) == ("safe", True)
    assert judged(danger, "Q3_K_M", Ratio(2.0, 0.1)) == ("passes", False)
    assert judged(danger, "Q4_K_M", Ratio(1.5, 0.2)) == ("passes", None)
    assert judged(danger, "Q8_0", Ratio(1.0, 0.01)) == ("", None)


def test_trials_of_one_name_are_one_file() -> None:
    """Rows are found again by their names, so a name may not stand for two recipes."""
    every = [trial for make in EXPERIMENTS.values() for trial in make()]
    files = {replace(trial, experiment="") for trial in every}
    assert len(files) == len({trial.name for trial in every}) > 40
    assert all(trial.recipe.type == trial.type for trial in every if not trial.padded)


@pytest.mark.parametrize("columns", [256, 320])
def test_simulated_q8_is_that_of_the_format(columns: int) -> None:
    """Blocks of 32 need no filling up, so that gguf's own quantizer has the same to say."""
    values = np.random.default_rng(0).normal(0, 0.02, (16, columns)).astype(np.float32)
    found, nbytes = through("Q8_0", values)
    kind = gguf.GGMLQuantizationType.Q8_0
    expected = gguf.quants.dequantize(gguf.quants.quantize(values, kind), kind)
    assert np.abs(found - expected).max() < 1e-6
    assert nbytes == 16 * -(-columns // 256) * 8 * 34


def test_importance_steers_the_simulated_error() -> None:
    values = np.random.default_rng(0).normal(0, 0.02, (64, 320)).astype(np.float32)
    weights = np.where(np.arange(320) < 32, 100.0, 0.01).astype(np.float32)
    plain, _ = through("Q2_K", values)
    steered, _ = through("Q2_K", values, weights)
    errors = [np.square(each - values)[:, :32].mean() for each in (plain, steered)]
    assert errors[1] < 0.9 * errors[0]


def test_a_padded_copy_changes_its_part_only(pico: Path, tmp_path: Path) -> None:
    whole = export(pico, tmp_path / "whole.gguf")
    found = padded_copy(whole, tmp_path / "blocks.gguf", "Q2_K", "blocks", {})
    header = read_gguf_header(whole)
    before, after = whole.read_bytes(), (tmp_path / "blocks.gguf").read_bytes()
    changed = {
        t.name
        for t in header.tensors
        if before[t.start :][: 2 * t.weights] != after[t.start :][: 2 * t.weights]
    }
    assert changed == {t.name for t in header.tensors if t.name.startswith("blk.") and len(t.shape) == 2}
    assert found.bits_per_weight < header.bits_per_weight
    assert found.bytes < len(before) == len(after)


def test_an_expanded_file_says_what_the_quantized_one_does(pico: Path, tmp_path: Path) -> None:
    """Every tensor, all metadata but the file's type, and so every probability."""
    whole, small = export(pico, tmp_path / "whole.gguf"), tmp_path / "small.gguf"
    run_quantizer(make_params(whole, small, make_recipe("Q8_0")))
    expand(small, tmp_path / "expanded.gguf")
    headers = [read_gguf_header(path) for path in (small, tmp_path / "expanded.gguf")]
    assert headers[0].metadata.keys() == headers[1].metadata.keys()
    readers = [gguf.GGUFReader(path) for path in (small, tmp_path / "expanded.gguf")]
    for one, other in zip(readers[0].tensors, readers[1].tensors, strict=True):
        values = gguf.quants.dequantize(one.data, one.tensor_type)
        assert one.name == other.name
        expected = to_bf16(values) if values.ndim > 1 else values
        assert np.array_equal(other.data.view(expected.dtype).reshape(expected.shape), expected)
    runtimes = [LlamaRuntime(path, threads=1, n_ctx=512) for path in (small, tmp_path / "expanded.gguf")]
    tokens = [runtime.encode(TEXT)[:100] for runtime in runtimes]
    rows = [np.concatenate(list(runtime.distributions(tokens[0]))) for runtime in runtimes]
    assert tokens[0] == tokens[1]
    exact, found = (each.astype(np.float64) for each in rows)
    assert (np.exp(exact) * (exact - found)).sum(axis=1).mean() < 1e-3


def test_halves_undo_the_pairs_of_llama_cpp() -> None:
    """Two heads of four rows: llama.cpp has a row of the first half beside one of the second."""
    rows = torch.arange(8.0)[:, None].repeat(1, 3)
    paired_rows = rows[[0, 2, 1, 3, 4, 6, 5, 7]]
    assert torch.equal(halves(paired_rows, 2), rows)
    assert torch_name("blk.3.attn_q.weight") == "model.layers.3.self_attn.q_proj.weight"


def test_the_text_of_the_domains_is_shared_out(data: Path) -> None:
    text = held_text(data, ["law", "computing"], 1200)
    assert 600 < text.nbytes <= 1200
    assert {window.text.split()[0] for window in text.windows} == {"law", "computing"}
    assert text.documents == len(text.windows)
    assert len(calibration(data, ["law", "computing"])) == 8


def test_the_toy_is_trained_once_and_runs_in_llama_cpp(tmp_path: Path) -> None:
    steps_seen: list[int] = []
    documents = [TEXT, TEXT.upper()]
    folder = ensure_toy(documents, TINY, lambda step, steps, loss: steps_seen.append(step))
    assert ensure_toy(documents, TINY, lambda step, steps, loss: steps_seen.append(-step)) == folder
    assert steps_seen == [1, 2]
    model = from_checkpoint("toy", folder, tmp_path, "", ["law"])
    assert set(model.ffn_ratios) == {4.0}
    runtime = LlamaRuntime(model.gguf, threads=1, n_ctx=512)
    from tokenizers import Tokenizer

    expected = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT, add_special_tokens=False).ids
    assert runtime.encode(TEXT) == [2, *expected]
    assert np.isfinite(runtime.logprobs(runtime.encode(TEXT)[:64])).all()


def test_rows_are_kept_and_not_measured_twice(
    pico: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run, a second with one trial more, and what the table and the predictor make of the file."""
    extra = Trial("ladder", "Q8_0 again", "Q8_0")
    wanted = [Trial("ladder", "Q2_K", "Q2_K"), Trial("ladder", "Q8_0", "Q8_0")]
    weighted = Trial(experiment="imatrix", name="Q2_K, imatrix", type="Q2_K", weighted=True)
    monkeypatch.setattr(measure, "EXPERIMENTS", {"one": lambda: wanted})
    monkeypatch.setattr(findings, "LADDER", ("Q2_K", "Q8_0"))
    output = tmp_path / "experiments.json"
    figures: dict[str, Any] = {"models": {}, "rows": []}
    model = from_checkpoint("pico", pico, tmp_path, "noise", ["law", "computing"])
    bench = Bench(output=output, data=data, work=tmp_path, limit=1200, tokens=200, threads=1, figures=figures)
    run_model(bench, model, ["one"])
    seconds = [each["seconds"] for each in json.loads(output.read_text())["rows"]]
    wanted += [extra, weighted]
    bench = Bench(
        output=output,
        data=data,
        work=tmp_path,
        limit=1200,
        tokens=200,
        threads=1,
        figures=json.loads(output.read_text()),
    )
    run_model(bench, model, ["one"])
    found = json.loads(output.read_text())
    assert [each["seconds"] for each in found["rows"]][:2] == seconds
    rows = {each["recipe"]["name"]: each for each in found["rows"]}
    assert rows["Q8_0 again"]["same_as"] == "Q8_0"
    assert rows["Q8_0 again"]["kl"] == rows["Q8_0"]["kl"]
    assert 0 <= rows["Q8_0"]["kl"]["value"] < rows["Q2_K"]["kl"]["value"]
    assert [pair["row"] for pair in found["paired"]] == ["Q2_K, imatrix"]
    assert found["models"]["pico"]["imatrix"]["coverage"]["ours"] == 1
    assert "| pico |" in experiments_table(found)
    assert track_record(output)[-1].case.model == "pico"
