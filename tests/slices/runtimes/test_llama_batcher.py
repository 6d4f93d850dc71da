"""Several answers in one context: each as if it were alone, and what was read once is not read again."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slices.errors import PromptTooLong, RunFailed, Unsupported
from slices.export import export
from slices.runtime import Batcher, Capacity, Piece, Sampling
from slices.runtimes.llama_batcher import MAX_PREFILL_TOKENS, LlamaBatcher, split_budget
from slices.runtimes.llama_runtime import LlamaRuntime
from slices.runtimes.open import open_batcher
from slices.runtimes.scripted import ScriptedRuntime
from slices.runtimes.single_sequence import SingleSequenceBatcher
from tests.slices.gguf_fixtures import FULL, SAMPLES, SLIDING, write_gemma3

TEXTS = list(SAMPLES.values())
LONG = " ".join(TEXTS) * 2  # longer than the sliding window and than a share of a step
GREEDY = Sampling(max_tokens=24, temperature=0)
YES_OR_NO = 'root ::= "yes" | "no"'


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_gemma3(tmp_path_factory.mktemp("pico") / "pico", [SLIDING, FULL, SLIDING])
    return export(folder, folder / "pico.gguf")


@pytest.fixture
def batcher(gguf: Path) -> Iterator[LlamaBatcher]:
    opened = LlamaBatcher(gguf, Capacity(max_num_seqs=3, max_model_len=1024, threads=1))
    yield opened
    opened.close()


def finished(batcher: Batcher, *slots: int) -> dict[int, list[Piece]]:
    """Step until the answers in these slots are over."""
    found: dict[int, list[Piece]] = {slot: [] for slot in slots}
    while not all(pieces and pieces[-1].finish_reason for pieces in found.values()):
        for slot, piece in batcher.step():
            found[slot].append(piece)
    return found


def alone(gguf: Path, prompt: str, sampling: Sampling) -> str:
    """What one sequence of its own says."""
    runtime = LlamaRuntime(gguf, threads=1, n_ctx=1024)
    text = "".join(piece.text for piece in runtime.generate(prompt, sampling))
    runtime.close()
    return text


def said(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(max_tokens=24, seed=3)])
def test_answers_together_are_as_alone(gguf: Path, batcher: LlamaBatcher, sampling: Sampling) -> None:
    prompts = [TEXTS[0], LONG, "The"]
    slots = [batcher.begin(prompt, sampling).id for prompt in prompts]
    assert sorted(slots) == [0, 1, 2]
    found = finished(batcher, *slots)
    for slot, prompt in zip(slots, prompts, strict=True):
        assert said(found[slot]) == alone(gguf, prompt, sampling)
        assert sum(piece.tokens for piece in found[slot]) <= 24


def test_one_joins_while_another_writes(gguf: Path, batcher: LlamaBatcher) -> None:
    first = batcher.begin("The", GREEDY).id
    found: dict[int, list[Piece]] = {first: [piece for _ in range(5) for _, piece in batcher.step()]}
    second = batcher.begin(LONG, GREEDY).id
    found[second], steps = [], 0
    while not found[second]:
        steps += 1
        for slot, piece in batcher.step():
            found[slot].append(piece)
    assert steps > 1, f"a prompt of more than {MAX_PREFILL_TOKENS} tokens is prefilled in chunks"
    completed = sum(piece.tokens for piece in found[first])
    assert completed >= min(24, 5 + steps - 1), "and the first goes on meanwhile, a token a step"
    for slot, pieces in finished(batcher, *(p for p in found if not found[p][-1].finish_reason)).items():
        found[slot] += pieces
    assert said(found[first]) == alone(gguf, "The", GREEDY)
    assert said(found[second]) == alone(gguf, LONG, GREEDY)


def test_the_next_turn_reuses_the_cached_prefix(gguf: Path, batcher: LlamaBatcher) -> None:
    first = batcher.begin(LONG, Sampling(max_tokens=4, temperature=0))
    assert first.cached_tokens == 0
    finished(batcher, first.id)
    longer = LONG + TEXTS[0]
    second = batcher.begin(longer, GREEDY)
    assert second.id == first.id
    assert second.cached_tokens >= first.prompt_tokens - 2, "all but where the last word may be cut otherwise"
    assert said(finished(batcher, second.id)[second.id]) == alone(gguf, longer, GREEDY)


def test_a_prefix_outside_the_sliding_window_is_not_reused(gguf: Path, batcher: LlamaBatcher) -> None:
    """What a sliding layer saw at the beginning is gone, so going back there must read anew."""
    finished(batcher, *(batcher.begin(LONG * 2, GREEDY).id for _ in range(3)))
    other = LONG[: len(LONG) // 4] + TEXTS[1]
    slot = batcher.begin(other, GREEDY)
    assert said(finished(batcher, slot.id)[slot.id]) == alone(gguf, other, GREEDY)


def test_the_same_prompt_again(gguf: Path, batcher: LlamaBatcher) -> None:
    """Its last token is run again, as it says what follows."""
    texts = []
    for _ in range(2):
        slot = batcher.begin("The quick", Sampling(max_tokens=3, temperature=0))
        texts.append(said(finished(batcher, slot.id)[slot.id]))
    assert slot.cached_tokens == slot.prompt_tokens - 1 and slot.id == 0
    assert texts[0] == texts[1] == alone(gguf, "The quick", Sampling(max_tokens=3, temperature=0))


def test_giving_up_frees_the_slot_at_once(batcher: LlamaBatcher) -> None:
    endless = Sampling(max_tokens=10_000, seed=1)
    slots = [batcher.begin(text, endless).id for text in ("a", "b", "c")]
    batcher.step()
    batcher.abort(slots[1])
    assert batcher.begin("d", endless).id == slots[1]
    batcher.step()


def test_a_full_context_ends_the_answer_and_a_long_prompt_is_refused(batcher: LlamaBatcher) -> None:
    with pytest.raises(PromptTooLong, match="the context holds 1024"):
        batcher.begin(LONG * 20, GREEDY)
    slot = batcher.begin("The", Sampling(max_tokens=10_000, temperature=0))
    pieces = finished(batcher, slot.id)[slot.id]
    assert pieces[-1].finish_reason in ("length", "stop")
    assert slot.prompt_tokens + sum(piece.tokens for piece in pieces) <= 1024


def test_stops_and_limits_are_each_answers_own(gguf: Path, batcher: LlamaBatcher) -> None:
    whole = alone(gguf, "The", GREEDY)
    stop = whole[len(whole) // 2 : len(whole) // 2 + 2]
    first = batcher.begin("The", Sampling(max_tokens=24, temperature=0, stop=(stop,))).id
    second = batcher.begin("The", Sampling(max_tokens=2, temperature=0)).id
    found = finished(batcher, first, second)
    assert said(found[first]) == whole[: whole.index(stop)] and found[first][-1].finish_reason == "stop"
    assert sum(piece.tokens for piece in found[second]) == 2 and found[second][-1].finish_reason == "length"


def test_probabilities_are_the_models_own(gguf: Path, batcher: LlamaBatcher) -> None:
    runtime = LlamaRuntime(gguf, threads=1)
    slot = batcher.begin("The quick", Sampling(max_tokens=5, seed=2, logprobs=4))
    logprobs = [each for piece in finished(batcher, slot.id)[slot.id] for each in piece.logprobs]
    assert len(logprobs) == 5
    tokens = runtime.encode("The quick")
    for each in logprobs:
        rows = np.concatenate(list(runtime.distributions([*tokens, 0])))[-1]
        best = np.sort(rows)[::-1][:4]
        assert [value for _, value in each.top] == pytest.approx(best.tolist(), abs=2e-2)
        token = min((abs(float(row) - each.logprob), at) for at, row in enumerate(rows))[1]
        assert runtime.model.token_bytes(token) == each.token
        tokens.append(token)
    runtime.close()


def test_an_answer_matches_its_grammar(batcher: LlamaBatcher) -> None:
    slots = [batcher.begin("Is it?", Sampling(seed=seed, grammar=YES_OR_NO)).id for seed in range(3)]
    for pieces in finished(batcher, *slots).values():
        assert said(pieces) in ("yes", "no")
        assert pieces[-1].finish_reason == "stop"
    with pytest.raises(Unsupported, match="cannot be read"):
        batcher.begin("Is it?", Sampling(grammar="root ::= nowhere"))
    assert len({batcher.begin("free again", GREEDY).id for _ in range(3)}) == 3


def test_an_object_of_a_schema(batcher: LlamaBatcher) -> None:
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    slot = batcher.begin("Say", Sampling(seed=1, grammar=json_schema_to_gbnf(json.dumps(schema))))
    found = json.loads(said(finished(batcher, slot.id)[slot.id]))
    assert isinstance(found["ok"], bool)


def test_a_failed_step_loses_its_answers_and_no_more(
    gguf: Path, batcher: LlamaBatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher.begin("The", GREEDY)
    with monkeypatch.context() as broken:
        broken.setattr(batcher._context._cpp, "llama_decode", lambda context, batch: 2)
        with pytest.raises(RunFailed, match="status 2"):
            batcher.step()
    slot = batcher.begin("The", GREEDY)
    assert slot.cached_tokens == 0
    assert said(finished(batcher, slot.id)[slot.id]) == alone(gguf, "The", GREEDY)


@given(st.integers(0, 600), st.dictionaries(st.integers(0, 20), st.integers(1, 900), min_size=1))
def test_a_budget_is_split_evenly(budget: int, pending: dict[int, int]) -> None:
    shares = split_budget(budget, pending)
    assert sum(shares.values()) == min(budget, sum(pending.values()))
    full = {slot for slot, share in shares.items() if share == pending[slot]}
    others = [shares.get(slot, 0) for slot in pending if slot not in full]
    assert not others or max(others) - min(others) <= 1
    assert not others or all(pending[slot] <= max(others) + 1 for slot in full)


def test_a_checkpoint_and_a_script_write_one_at_a_time(gguf: Path) -> None:
    opened = open_batcher(gguf.parent, None, Capacity(max_model_len=256, threads=1))
    assert isinstance(opened, SingleSequenceBatcher) and opened.max_num_seqs == 1
    slot = opened.begin("The", GREEDY)
    assert said(finished(opened, slot.id)[slot.id])
    with pytest.raises(Unsupported, match=r"llama\.cpp"):
        opened.begin("The", Sampling(grammar=YES_OR_NO))
    opened.close()
    scripted = SingleSequenceBatcher(ScriptedRuntime())
    slot = scripted.begin("a", Sampling(stop=("ans",)))
    assert said(finished(scripted, slot.id)[slot.id]) == "scripted "
