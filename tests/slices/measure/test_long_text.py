"""Long text: bins of the same bytes for every model, bits where the text has them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from slices.errors import RunFailed
from slices.measure.long_text import EDGES, LENGTHS, LongText, choose_long_text, score_positions
from slices.runtimes.scripted import ScriptedRuntime
from slices.runtimes.torch_runtime import TorchRuntime
from tests.slices.gguf_fixtures import FULL, SLIDING, write_gemma3

WORDS = "The court held that the tenant may not assign the lease. "  # 57 bytes


def document(number: int, nbytes: int) -> str:
    return (f"Case {number}. " + WORDS * (nbytes // len(WORDS) + 1))[:nbytes]


@dataclass
class ByByte(ScriptedRuntime):
    """Spends `bits` on a byte and `far` more on each beyond `window`; `pieces` tokens stand for a byte."""

    bits: float = 2.0
    far: float = 0.0
    window: int = 512
    pieces: int = 1

    def encode(self, text: str) -> list[int]:
        return [256, *(byte for byte in text.encode() for _ in range(self.pieces))]

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        positions = np.arange(1, len(tokens))
        bits = (self.bits + self.far * (positions >= self.window * self.pieces)) / self.pieces
        return -bits * math.log(2)


def test_bins_are_cut_before_words_at_the_edges_and_join_to_the_document() -> None:
    text = choose_long_text(ByByte(), [document(0, 5000)])
    (parts,) = text.parts
    assert len(parts) == 4  # 4,096 tokens of a byte each, the bos included
    assert document(0, 5000).startswith("".join(parts))
    assert all(part[0] == " " for part in parts[1:])
    read = np.cumsum([0, *(len(part) for part in parts)])
    assert all(edge - 14 < 1 + end <= edge for edge, end in zip(EDGES[1:5], read[1:], strict=True))
    assert text.nbytes == [[len(part) for part in parts]]


def test_documents_are_taken_by_hash_from_every_length_in_turn() -> None:
    sizes = [300, 900, *[1500] * 9, *[3000] * 5, *[5000] * 3, 9000]
    documents = [document(number, size) for number, size in enumerate(sizes)]
    text = choose_long_text(ByByte(), documents, 8)
    assert [len(parts) for parts in text.parts] == [5, 4, 3, 2, 4, 3, 2, 4]
    assert text == choose_long_text(ByByte(), documents[::-1], 8)
    assert text.sha256 == choose_long_text(ByByte(), documents[::-1], 8).sha256
    assert len(choose_long_text(ByByte(), documents, 100).parts) == 18  # what there is
    assert choose_long_text(ByByte(), documents[:2]).parts == ()
    shorter = choose_long_text(ByByte(), documents, 8, max_tokens=2048)
    assert [len(parts) for parts in shorter.parts] == [3, 2, 3, 2, 3, 2, 3, 2]
    assert shorter.sha256 != text.sha256


@pytest.mark.parametrize("pieces", [1, 3])
def test_bits_fall_into_their_bins_whatever_the_tokens(pieces: int) -> None:
    """A model that loses a bit a byte beyond 512 bytes, in one token a byte or in three."""
    text = choose_long_text(ByByte(), [document(n, 2100) for n in range(3)])
    model = ByByte(far=1.0, pieces=pieces)
    found = score_positions("m", model, text, 100_000)
    assert found.tokens == pieces * sum(map(sum, text.nbytes))
    assert found.truncated == 0
    for bits, nbytes in zip(found.bits, text.nbytes, strict=True):
        assert bits[0] == pytest.approx(2 * nbytes[0])
        assert bits[1:] == pytest.approx([3 * each for each in nbytes[1:]], rel=0.02)


def test_what_exceeds_a_context_is_left_out_and_counted() -> None:
    text = choose_long_text(ByByte(), [document(0, 2100), document(1, 1100)])
    found = score_positions("m", ByByte(pieces=2), text, 2048)
    assert ([len(bits) for bits in found.bits], found.truncated) == ([2, 2], 1)
    assert score_positions("m", ByByte(), text, 100).bits == [[], []]


def test_a_model_without_a_finite_probability_is_refused() -> None:
    class Silent(ByByte):
        def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float64]:
            return np.full(len(tokens) - 1, -np.inf)

    text = choose_long_text(ByByte(), [document(0, 1100)])
    with pytest.raises(RunFailed, match="silent gave no finite probability"):
        score_positions("silent", Silent(), text, 10_000)


def test_bins_below_the_window_are_alike_and_those_beyond_are_not(tmp_path: Path) -> None:
    """A model with full attention and its copy with sliding layers only: the masks differ beyond 512."""
    shape: dict[str, float] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "head_dim": 8,
        "sliding_window": 512,
    }
    shape |= {"rope_theta": 10_000.0, "rope_local_base_freq": 10_000.0}
    full = write_gemma3(tmp_path / "full", [SLIDING, FULL], 3, **shape)
    sliding = write_gemma3(tmp_path / "sliding", [SLIDING, SLIDING], 3, **shape)
    models = [TorchRuntime(folder=folder, threads=1, max_model_len=2048) for folder in (full, sliding)]
    text = choose_long_text(models[0], [document(0, 6000), document(1, 6000)], max_tokens=LENGTHS[0])
    assert text.parts
    ours, theirs = (np.array(score_positions("m", each, text, 2048).bits) for each in models)
    assert np.allclose(ours[:, 0], theirs[:, 0], rtol=1e-6)
    assert (np.abs(ours[:, 1] - theirs[:, 1]) > 1e-4).all()


def test_sha256_is_of_the_cuts_too() -> None:
    digests = [LongText((parts,)).sha256 for parts in (("ab", "c"), ("a", "bc"), ("abc",))]
    assert all(one != other for one, other in pairwise(sorted(digests)))
