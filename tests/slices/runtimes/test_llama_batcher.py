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
from slices.runtimes.llama_batcher import SHARED, LlamaBatcher, shared_out
from slices.runtimes.llama_runtime import LlamaRuntime
from slices.runtimes.one_by_one import OneByOne
from slices.runtimes.open import open_batcher
from slices.runtimes.scripted import ScriptedRuntime
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
    opened = LlamaBatcher(gguf, Capacity(places=3, context=1024, threads=1))
    yield opened
    opened.close()


def finished(batcher: Batcher, *places: int) -> dict[int, list[Piece]]:
    """Step until the answers at these places are over."""
    found: dict[int, list[Piece]] = {place: [] for place in places}
    while not all(pieces and pieces[-1].finish for pieces in found.values()):
        for place, piece in batcher.step():
            found[place].append(piece)
    return found


def alone(gguf: Path, prompt: str, sampling: Sampling) -> str:
    """What one sequence of its own says."""
    runtime = LlamaRuntime(gguf, threads=1, context=1024)
    text = "".join(piece.text for piece in runtime.generate(prompt, sampling))
    runtime.close()
    return text


def said(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(max_tokens=24, seed=3)])
def test_answers_together_are_as_alone(gguf: Path, batcher: LlamaBatcher, sampling: Sampling) -> None:
    prompts = [TEXTS[0], LONG, "The"]
    places = [batcher.begin(prompt, sampling).place for prompt in prompts]
    assert sorted(places) == [0, 1, 2]
    found = finished(batcher, *places)
    for place, prompt in zip(places, prompts, strict=True):
        assert said(found[place]) == alone(gguf, prompt, sampling)
        assert sum(piece.tokens for piece in found[place]) <= 24


def test_one_joins_while_another_writes(gguf: Path, batcher: LlamaBatcher) -> None:
    first = batcher.begin("The", GREEDY).place
    found: dict[int, list[Piece]] = {first: [piece for _ in range(5) for _, piece in batcher.step()]}
    second = batcher.begin(LONG, GREEDY).place
    found[second], steps = [], 0
    while not found[second]:
        steps += 1
        for place, piece in batcher.step():
            found[place].append(piece)
    assert steps > 1, f"a prompt of more than {SHARED} tokens is read in shares"
    told = sum(piece.tokens for piece in found[first])
    assert told >= min(24, 5 + steps - 1), "and the first goes on meanwhile, a token a step"
    for place, pieces in finished(batcher, *(p for p in found if not found[p][-1].finish)).items():
        found[place] += pieces
    assert said(found[first]) == alone(gguf, "The", GREEDY)
    assert said(found[second]) == alone(gguf, LONG, GREEDY)


def test_the_next_turn_is_read_on_from_where_the_last_ended(gguf: Path, batcher: LlamaBatcher) -> None:
    first = batcher.begin(LONG, Sampling(max_tokens=4, temperature=0))
    assert first.reused == 0
    finished(batcher, first.place)
    longer = LONG + TEXTS[0]
    second = batcher.begin(longer, GREEDY)
    assert second.place == first.place
    assert second.reused >= first.prompt_tokens - 2, "all but where the last word may be cut otherwise"
    assert said(finished(batcher, second.place)[second.place]) == alone(gguf, longer, GREEDY)


def test_another_prompt_is_not_read_through_a_window_that_moved_on(gguf: Path, batcher: LlamaBatcher) -> None:
    """What a sliding layer saw at the beginning is gone, so going back there must read anew."""
    finished(batcher, *(batcher.begin(LONG * 2, GREEDY).place for _ in range(3)))
    other = LONG[: len(LONG) // 4] + TEXTS[1]
    seat = batcher.begin(other, GREEDY)
    assert said(finished(batcher, seat.place)[seat.place]) == alone(gguf, other, GREEDY)


def test_the_same_prompt_again(gguf: Path, batcher: LlamaBatcher) -> None:
    """Its last token is run again, as it says what follows."""
    texts = []
    for _ in range(2):
        seat = batcher.begin("The quick", Sampling(max_tokens=3, temperature=0))
        texts.append(said(finished(batcher, seat.place)[seat.place]))
    assert seat.reused == seat.prompt_tokens - 1 and seat.place == 0
    assert texts[0] == texts[1] == alone(gguf, "The quick", Sampling(max_tokens=3, temperature=0))


def test_giving_up_frees_the_place_at_once(batcher: LlamaBatcher) -> None:
    endless = Sampling(max_tokens=10_000, seed=1)
    places = [batcher.begin(text, endless).place for text in ("a", "b", "c")]
    batcher.step()
    batcher.drop(places[1])
    assert batcher.begin("d", endless).place == places[1]
    batcher.step()


def test_a_full_context_ends_the_answer_and_a_long_prompt_is_refused(batcher: LlamaBatcher) -> None:
    with pytest.raises(PromptTooLong, match="the context holds 1024"):
        batcher.begin(LONG * 20, GREEDY)
    seat = batcher.begin("The", Sampling(max_tokens=10_000, temperature=0))
    pieces = finished(batcher, seat.place)[seat.place]
    assert pieces[-1].finish in ("length", "stop")
    assert seat.prompt_tokens + sum(piece.tokens for piece in pieces) <= 1024


def test_stops_and_limits_are_each_answers_own(gguf: Path, batcher: LlamaBatcher) -> None:
    whole = alone(gguf, "The", GREEDY)
    stop = whole[len(whole) // 2 : len(whole) // 2 + 2]
    first = batcher.begin("The", Sampling(max_tokens=24, temperature=0, stop=(stop,))).place
    second = batcher.begin("The", Sampling(max_tokens=2, temperature=0)).place
    found = finished(batcher, first, second)
    assert said(found[first]) == whole[: whole.index(stop)] and found[first][-1].finish == "stop"
    assert sum(piece.tokens for piece in found[second]) == 2 and found[second][-1].finish == "length"


def test_probabilities_are_the_models_own(gguf: Path, batcher: LlamaBatcher) -> None:
    runtime = LlamaRuntime(gguf, threads=1)
    seat = batcher.begin("The quick", Sampling(max_tokens=5, seed=2, logprobs=4))
    told = [each for piece in finished(batcher, seat.place)[seat.place] for each in piece.logprobs]
    assert len(told) == 5
    tokens = runtime.encode("The quick")
    for each in told:
        rows = np.concatenate(list(runtime.distributions([*tokens, 0])))[-1]
        best = np.sort(rows)[::-1][:4]
        assert [value for _, value in each.top] == pytest.approx(best.tolist(), abs=2e-2)
        token = min((abs(float(row) - each.logprob), at) for at, row in enumerate(rows))[1]
        assert runtime.model.bytes(token) == each.token
        tokens.append(token)
    runtime.close()


def test_an_answer_matches_its_grammar(batcher: LlamaBatcher) -> None:
    places = [batcher.begin("Is it?", Sampling(seed=seed, grammar=YES_OR_NO)).place for seed in range(3)]
    for pieces in finished(batcher, *places).values():
        assert said(pieces) in ("yes", "no")
        assert pieces[-1].finish == "stop"
    with pytest.raises(Unsupported, match="cannot be read"):
        batcher.begin("Is it?", Sampling(grammar="root ::= nowhere"))
    assert len({batcher.begin("free again", GREEDY).place for _ in range(3)}) == 3


def test_an_object_of_a_schema(batcher: LlamaBatcher) -> None:
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    seat = batcher.begin("Say", Sampling(seed=1, grammar=json_schema_to_gbnf(json.dumps(schema))))
    found = json.loads(said(finished(batcher, seat.place)[seat.place]))
    assert isinstance(found["ok"], bool)


def test_a_failed_step_loses_its_answers_and_no_more(
    gguf: Path, batcher: LlamaBatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher.begin("The", GREEDY)
    with monkeypatch.context() as broken:
        broken.setattr(batcher._slots._cpp, "llama_decode", lambda context, batch: 2)
        with pytest.raises(RunFailed, match="status 2"):
            batcher.step()
    seat = batcher.begin("The", GREEDY)
    assert seat.reused == 0
    assert said(finished(batcher, seat.place)[seat.place]) == alone(gguf, "The", GREEDY)


@given(st.integers(0, 600), st.dictionaries(st.integers(0, 20), st.integers(1, 900), min_size=1))
def test_shares_are_fair(room: int, wanted: dict[int, int]) -> None:
    shares = shared_out(room, wanted)
    assert sum(shares.values()) == min(room, sum(wanted.values()))
    full = {place for place, share in shares.items() if share == wanted[place]}
    others = [shares.get(place, 0) for place in wanted if place not in full]
    assert not others or max(others) - min(others) <= 1
    assert not others or all(wanted[place] <= max(others) + 1 for place in full)


def test_a_checkpoint_and_a_script_write_one_at_a_time(gguf: Path) -> None:
    opened = open_batcher(gguf.parent, None, Capacity(context=256, threads=1))
    assert isinstance(opened, OneByOne) and opened.places == 1
    seat = opened.begin("The", GREEDY)
    assert said(finished(opened, seat.place)[seat.place])
    with pytest.raises(Unsupported, match=r"llama\.cpp"):
        opened.begin("The", Sampling(grammar=YES_OR_NO))
    opened.close()
    scripted = OneByOne(ScriptedRuntime())
    seat = scripted.begin("a", Sampling(stop=("ans",)))
    assert said(finished(scripted, seat.place)[seat.place]) == "scripted "
