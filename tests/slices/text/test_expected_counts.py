"""What the parent expects: both runtimes agree, it is read once, and it ranks the rows a text leaves open."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from slices.checkpoint import open_checkpoint
from slices.cut.pipeline import cut, plan_cut
from slices.cut.request import SliceRequest
from slices.cut.vocabulary import choose_rows
from slices.export import export
from slices.runtimes.llama_runtime import LlamaRuntime
from slices.runtimes.scripted import ScriptedRuntime
from slices.runtimes.torch_runtime import TorchRuntime
from slices.text import synthetic
from slices.text.corpus import Corpus
from slices.text.expected_counts import expected_counts
from slices.tokenizer.files import BpeTokenizer, read_bpe

TEXT = Corpus(
    "parent", ("The quick brown fox jumps.", "The dogs of the town answered it one by one.", "return a + b")
)


def test_runtimes_agree_and_count_every_position(pico_gemma3: Path, tmp_path: Path) -> None:
    gguf = export(pico_gemma3, tmp_path / "pico.gguf")
    ours, theirs = TorchRuntime(pico_gemma3), LlamaRuntime(gguf, threads=1, n_ctx=256)
    tokens = ours.encode(TEXT.documents[1])
    a, b = ours.expected_counts(tokens), theirs.expected_counts(tokens)
    ours.close()
    theirs.close()
    assert a.shape == b.shape
    assert a.sum() == pytest.approx(len(tokens), abs=1e-3)
    assert np.abs(a - b).max() < 0.01 * a.max()
    assert ScriptedRuntime().expected_counts(range(512)).sum() == pytest.approx(512)


def test_counts_are_summed_and_cached(pico_gemma3: Path) -> None:
    checkpoint = open_checkpoint(pico_gemma3)
    seen: list[tuple[int, int]] = []
    first = expected_counts(checkpoint, None, TEXT, lambda stage, *step: seen.append(step))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    runtime = TorchRuntime(pico_gemma3)
    whole = sum(runtime.expected_counts(runtime.encode(document)) for document in TEXT.documents)
    runtime.close()
    np.testing.assert_allclose(first, whole, rtol=1e-5)
    again = expected_counts(checkpoint, None, TEXT, lambda *step: pytest.fail("read again"))
    assert (again == first).all()


def test_many_runtimes_give_what_one_gives(pico_gemma3: Path, tmp_path: Path) -> None:
    gguf = export(pico_gemma3, tmp_path / "pico.gguf")
    found = expected_counts(open_checkpoint(pico_gemma3), gguf, TEXT)
    runtime = LlamaRuntime(gguf, threads=1, n_ctx=256)
    whole = sum(runtime.expected_counts(runtime.encode(document)) for document in TEXT.documents)
    runtime.close()
    np.testing.assert_allclose(found, whole, rtol=1e-4)


def test_rank_fills_the_rows_that_the_text_leaves_open(pico_gemma3: Path) -> None:
    bpe: BpeTokenizer = read_bpe(pico_gemma3)
    ids = sorted(bpe.tokens)
    least = choose_rows("domain", bpe, Counter(), len(ids), [])
    assert least is not None
    kept = set(least.tolist())
    free = [i for i in ids if {bpe.vocab[t] for t in bpe.intermediate_tokens(bpe.tokens[i])} - kept == {i}]
    rank = np.zeros(len(ids))
    rank[free[-1]] = 2.0
    rank[free[-2]] = 1.0
    one, two = (choose_rows(str(len(least) + n), bpe, Counter(), len(ids), [], rank) for n in (1, 2))
    assert one is not None and two is not None
    assert set(one.tolist()) - kept == {free[-1]}
    assert set(two.tolist()) - kept == {free[-1], free[-2]}


def test_a_slice_without_data_is_ranked_by_its_parent(
    pico_gemma3: Path, mom_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "TOKENS", 4)
    stages: set[str] = set()
    cut(
        SliceRequest(domain="law", layers="all", model=str(pico_gemma3), vocab="450"),
        lambda stage, done, total: stages.add(stage),
    )
    assert stages == {"write law", "rank rows", "extract"}
    assert len(list((mom_home / "scores").glob("expected-*.npy"))) == 1


def test_a_dry_run_of_so_many_rows_runs_no_parent(
    pico_gemma3: Path, mom_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "TOKENS", 4)
    request = SliceRequest(domain="law", layers="all", model=str(pico_gemma3), vocab="450")
    _, plan, text = plan_cut(request, measure=False)
    assert text is None
    assert plan.vocabulary == 450
    assert not mom_home.exists()
    _, real, text = plan_cut(request)
    assert text is not None
    assert real.nbytes == plan.nbytes
