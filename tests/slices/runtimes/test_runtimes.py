"""Both runtimes keep the promises of `slices.runtime.Runtime`, and so do the parts they share."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slices.errors import BadCheckpoint, MissingExtra, NotFound, PromptTooLong
from slices.export import export
from slices.runtime import Piece, Runtime, Sampling
from slices.runtimes.detokenizer import detokenize
from slices.runtimes.llama_library import load_library
from slices.runtimes.llama_runtime import LlamaRuntime
from slices.runtimes.open import open_runtime
from slices.runtimes.sampling import sample_token, top_logprobs
from slices.runtimes.softmax import log_softmax_at
from slices.runtimes.torch_runtime import TorchRuntime
from tests.slices.gguf_fixtures import FULL, SAMPLES, SLIDING, tokenizer_json, write_gemma3

TEXT = " ".join(SAMPLES.values())
ROWS = len(tokenizer_json()["model"]["vocab"]) + 3  # of the pico's embedding


@pytest.fixture(scope="module")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_gemma3(tmp_path_factory.mktemp("pico") / "pico", [SLIDING, FULL, SLIDING])
    export(folder, folder / "pico.gguf")
    return folder


@pytest.fixture(params=["torch", "llama"])
def runtime(request: pytest.FixtureRequest, pico: Path) -> Iterator[Runtime]:
    file = Path("pico.gguf") if request.param == "llama" else None
    opened = open_runtime(pico, file, threads=1, max_model_len=256)
    yield opened
    opened.close()


def test_logprobs_sum_to_one_over_all_continuations(runtime: Runtime) -> None:
    start = runtime.encode("The quick")
    last = [runtime.logprobs([*start, token])[-1] for token in range(ROWS)]
    assert np.exp(last).sum() == pytest.approx(1, abs=1e-3)
    assert runtime.logprobs(start[:1]).shape == (0,)


@pytest.mark.gpu
def test_a_gpu_reads_as_a_processor_does(pico: Path) -> None:
    there, here = open_runtime(pico, threads=1, device="cuda"), open_runtime(pico, threads=1)
    tokens = here.encode(TEXT)
    assert there.logprobs(tokens) == pytest.approx(here.logprobs(tokens), abs=1e-3)
    ours, theirs = next(there.distributions(tokens)), next(here.distributions(tokens))
    assert np.abs(ours - theirs).max() < 1e-2
    greedy = Sampling(max_tokens=8, temperature=0)
    assert [p.text for p in there.generate("The", greedy)] == [p.text for p in here.generate("The", greedy)]


def test_chunks_do_not_change_logprobs(pico: Path) -> None:
    """Chunks bound the memory; each begins where the last ended, beyond the sliding window of 16."""
    llama = LlamaRuntime(pico / "pico.gguf", threads=1)
    tokens = llama.encode(TEXT)
    whole = llama.logprobs(tokens)
    llama._chunk = 20
    assert np.abs(llama.logprobs(tokens) - whole).max() < 0.02
    llama.close()
    llama.close()


def test_the_end_of_a_window_is_read_as_its_middle_is(pico: Path) -> None:
    """llama.cpp sums attention otherwise below 64 tokens; llama-perplexity runs the last one too."""
    llama = LlamaRuntime(pico / "pico.gguf", threads=1, n_ctx=256)
    tokens = (llama.encode(TEXT) * 2)[:257]
    whole = np.concatenate(list(llama.distributions(tokens)))
    short = np.concatenate(list(llama.distributions(tokens[:64])))
    assert np.array_equal(short, whole[:63])
    assert len(whole) == 256  # the last of 257 tokens has no room, and needs none
    llama.close()


def test_generation_is_seeded_counted_and_leaves_no_trace(runtime: Runtime) -> None:
    tokens = runtime.encode(TEXT)[:100]
    before = runtime.logprobs(tokens)
    answers = [list(runtime.generate("The", Sampling(max_tokens=12, seed=seed))) for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]
    assert sum(piece.tokens for piece in answers[0]) <= 12
    assert [piece.finish_reason is None for piece in answers[0]] == [True] * (len(answers[0]) - 1) + [False]
    assert np.array_equal(runtime.logprobs(tokens), before)


def test_greedy_takes_the_likeliest(runtime: Runtime) -> None:
    greedy = Sampling(max_tokens=1, temperature=0)
    text = "".join(piece.text for piece in runtime.generate("def add", greedy))
    start = runtime.encode("def add")
    likeliest = int(np.argmax([runtime.logprobs([*start, token])[-1] for token in range(ROWS)]))
    assert text.encode() in (_bytes(runtime, likeliest), b"", "\ufffd".encode())


def _bytes(runtime: Runtime, token: int) -> bytes:
    if isinstance(runtime, LlamaRuntime):
        return runtime.model.token_bytes(token)
    assert isinstance(runtime, TorchRuntime)
    return runtime._token_bytes[token]


def test_text_survives_the_tokens(runtime: Runtime) -> None:
    for text in SAMPLES.values():
        joined = b"".join(_bytes(runtime, token) for token in runtime.encode(text)[1:])
        assert joined.decode() == text.replace("▁", " ")


def test_closing_stops_and_frees_the_runtime_for_the_next(runtime: Runtime) -> None:
    answer = runtime.generate("The", Sampling(max_tokens=100, seed=5))
    first = next(answer)
    answer.close()  # type: ignore[attr-defined]
    assert next(runtime.generate("The", Sampling(max_tokens=100, seed=5))) == first


def test_control_tokens_count_in_prompts_only(runtime: Runtime) -> None:
    assert runtime.encode("<bos>")[1:] != [2]
    tokenize = runtime.model.tokenize if isinstance(runtime, LlamaRuntime) else runtime._tokenize  # type: ignore[attr-defined]
    assert tokenize("<bos>a<end_of_turn>", control=True)[0:1] == [2]
    assert tokenize("<bos>", control=True) == [2]


def test_full_context_ends_the_answer_and_a_long_prompt_is_refused(runtime: Runtime) -> None:
    answer = list(runtime.generate("aé" * 120, Sampling(max_tokens=10_000, temperature=0)))
    assert answer[-1].finish_reason in ("length", "stop")
    with pytest.raises(PromptTooLong, match="the context holds 256"):
        list(runtime.generate("aé" * 400, Sampling()))


def test_model_that_ends_gives_one_empty_piece(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(runtime, LlamaRuntime):
        monkeypatch.setattr(runtime._cpp, "llama_vocab_is_eog", lambda vocab, token: True)
    else:
        monkeypatch.setattr(runtime, "_eos_ids", frozenset(range(10_000)))
    assert list(runtime.generate("The", Sampling())) == [Piece("", 0, "stop")]


def test_opening_is_silent(pico: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for file in (None, Path("pico.gguf")):
        opened = open_runtime(pico, file, threads=1)
        list(opened.generate("The", Sampling(max_tokens=3)))
        opened.close()
    assert capfd.readouterr() == ("", "")


def test_damaged_files_are_named(pico: Path, tmp_path: Path) -> None:
    whole = (pico / "pico.gguf").read_bytes()
    (tmp_path / "short.gguf").write_bytes(whole[:-1000])
    with pytest.raises(BadCheckpoint, match=r"short\.gguf.*cut short"):
        open_runtime(tmp_path, Path("short.gguf"))
    (tmp_path / "text.gguf").write_bytes(b"no gguf" * 10)
    with pytest.raises(BadCheckpoint, match=r"text\.gguf"):
        open_runtime(tmp_path, Path("text.gguf"))
    with pytest.raises(NotFound, match=r"none\.gguf"):
        open_runtime(tmp_path, Path("none.gguf"))
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_bytes((pico / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes((pico / "model.safetensors").read_bytes()[:-8])
    with pytest.raises(BadCheckpoint, match=r"model\.safetensors"):
        open_runtime(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(NotFound, match=r"no model\.safetensors"):
        open_runtime(tmp_path)


def test_header_that_passes_but_does_not_fit_is_reported(pico: Path, tmp_path: Path) -> None:
    raw = (pico / "pico.gguf").read_bytes()
    (tmp_path / "odd.gguf").write_bytes(raw.replace(b"blk.0.attn_norm.weight", b"blk.0.attn_xxxx.weight"))
    with pytest.raises(BadCheckpoint, match=r"odd\.gguf: .*blk\.0\.attn_norm\.weight"):
        open_runtime(tmp_path, Path("odd.gguf"))


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, pico: Path) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp.llama_cpp", None)
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(MissingExtra, match=r"mom-slicer\[quantize\]"):
        load_library.__wrapped__()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"mom-slicer\[torch\]"):
        TorchRuntime(pico)


def test_pieces_hold_back_unfinished_characters() -> None:
    raw = "é🙂a".encode()
    found = list(detokenize((raw[i : i + 1] for i in range(len(raw))), Sampling(max_tokens=99)))
    assert found == [Piece("é", 2), Piece("🙂", 4), Piece("a", 1), Piece("", 0, "length")]
    assert list(detokenize([b"\xf0\x9f", None], Sampling()))[-1] == Piece("\ufffd", 1, "stop")
    assert next(detokenize([b"\xff", b"a"], Sampling())) == Piece("\ufffd", 1)


def test_pieces_stop_at_a_stop_text_and_never_show_a_part_of_it() -> None:
    tokens = [b"one", b" </", b"b> ", b"</s", b"top>", b"never"]
    found = list(detokenize(tokens, Sampling(stop=("</stop>", "zzz"))))
    assert "".join(piece.text for piece in found) == "one </b> "
    assert found[-1].finish_reason == "stop"
    assert sum(piece.tokens for piece in found) == 5
    assert list(detokenize([b"ab", b"c"], Sampling(stop=("bcd",))))[-1] == Piece("bc", 1, "length")


def test_pieces_ask_for_no_token_too_many() -> None:
    tokens = iter([b"a", b"b", b"c"])
    assert list(detokenize(tokens, Sampling(max_tokens=2))) == [Piece("a"), Piece("b", 1, "length")]
    assert next(tokens) == b"c"
    assert list(detokenize(tokens, Sampling(max_tokens=0))) == [Piece("", 0, "length")]


def test_choose_follows_the_sampling() -> None:
    random = np.random.default_rng(0)
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype=np.float32))

    def draw(**sampling: Any) -> set[int]:
        return {sample_token(logits, Sampling(**sampling), [], random) for _ in range(400)}

    assert draw(temperature=0) == {0}
    assert draw(temperature=1, top_k=0, top_p=1) == {0, 1, 2, 3}
    assert draw(temperature=1, top_k=2, top_p=1) == {0, 1}
    assert draw(temperature=1, top_k=0, top_p=0.8) == {0, 1}
    assert draw(temperature=1, top_k=0, top_p=0.81) == {0, 1, 2}
    assert draw(temperature=1, top_k=0, top_p=0) == {0}
    drawn = [sample_token(logits, Sampling(temperature=1, top_k=0, top_p=1), [], random) for _ in range(4000)]
    assert np.bincount(drawn) / 4000 == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)
    assert sample_token(logits, Sampling(temperature=0, repeat_penalty=2), [0], random) == 1


def test_choose_finds_the_top_among_many() -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        logits = random.integers(0, 50, 5000).astype(np.float32)  # many ties
        token = sample_token(logits, Sampling(temperature=1, top_k=7, top_p=1), [], random)
        assert logits[token] >= np.sort(logits)[-7]


def test_the_likeliest_are_those_of_a_full_sort() -> None:
    random = np.random.default_rng(0)
    for size in (40, 64, 5000, 8192):  # fewer than a group, one, several and a rest, several
        logits = random.integers(0, 50, size).astype(np.float32)  # many ties: the lower id goes first
        wanted = np.argsort(-logits, kind="stable")
        for count in (1, 7, 40):
            found = [token for token, _ in top_logprobs(logits, 0, count)[1]]
            assert found == wanted[:count].tolist()


def test_log_softmax_is_exact() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 30, (21, 1000)).astype(np.float32)
    targets = random.integers(0, 1000, 21)
    exact = logits.astype(np.float64)
    expected = exact[np.arange(21), targets] - np.log(np.exp(exact - exact.max()).sum(1)) - exact.max()
    assert log_softmax_at(logits, targets) == pytest.approx(expected, abs=1e-5)
