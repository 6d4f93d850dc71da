"""The sampled KL: by hand, against whole distributions, from disk, and with windows that overlap."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from slices.errors import BadConfig, RunFailed
from slices.measure.bits_per_byte import score_text
from slices.measure.divergence import Divergence, measure_divergence
from slices.measure.heldout import Heldout, cut_heldout, strides
from slices.measure.reference_cache import cached_reference, reference_file
from slices.measure.sampled_distribution import SAMPLED, TOP, sample_distribution, sampled_kl
from slices.measure.token_map import TokenMap
from slices.measure.tokenized import map_token_ids, tokenize_windows
from slices.runtime import Runtime
from slices.runtimes.scripted import ScriptedRuntime
from slices.runtimes.softmax import log_softmax

SHARED = TokenMap(np.append(np.arange(256), -1), np.append(np.arange(256), -1))  # all but token 256
DOCUMENTS = ["the quick brown fox " * 9, "jumps over the lazy dog " * 12, "and sleeps until noon " * 7]


@dataclass
class Random(ScriptedRuntime):
    """A byte model of 257 tokens whose logits come from a seed; `reads` counts how often it is run."""

    logits: NDArray[np.float32] = field(default_factory=lambda: np.zeros((257, 257), np.float32))
    reads: int = 0

    def distributions(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        self.reads += 1
        for start in range(0, len(tokens) - 1, 5):
            yield log_softmax(self.logits[list(tokens[start : min(start + 5, len(tokens) - 1)])])


def random_model(seed: int, base: Random | None = None, noise: float = 3.0) -> Random:
    drawn = np.random.default_rng(seed).normal(0, noise, (257, 257)).astype(np.float32)
    return Random(logits=drawn if base is None else base.logits + drawn)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOM_HOME", str(tmp_path))


def against(model: Runtime, reference: Random, text: Heldout) -> Divergence:
    windows = tokenize_windows("model", model, text)
    return measure_divergence(
        "model", model, cached_reference("reference", "it", lambda: reference, text, windows)
    )


def exact_kl(reference: NDArray[np.float32], model: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray((np.exp(reference.astype(np.float64)) * (reference - model)).sum(axis=1))


@pytest.mark.parametrize("noise", [0.05, 1.0])
def test_the_sampled_kl_is_that_of_whole_distributions(noise: float) -> None:
    reference = random_model(1)
    model, text = random_model(2, reference, noise), cut_heldout(DOCUMENTS * 9)
    inputs = [token for each in tokenize_windows("model", model, text) for token in each.tokens[:-1]]
    ours, theirs = (log_softmax(each.logits)[inputs] for each in (reference, model))
    found = against(model, reference, text)
    assert found.kl_sampled_tokens == SAMPLED
    assert found.kl.value == pytest.approx(exact_kl(ours, theirs).mean(), rel=0.03)
    assert found.same_top1.value == (ours.argmax(axis=1) == theirs.argmax(axis=1)).mean()
    alone = [score_text("alone", each, text) for each in (reference, model)]
    growth = (alone[1].bits.sum() - alone[0].bits.sum()) * np.log(2) / found.tokens
    assert found.perplexity_ratio.value == pytest.approx(np.exp(growth), rel=1e-6)
    assert found.bits_per_byte.value == pytest.approx(alone[1].bits_per_byte.value, rel=1e-9)
    assert found.bits_per_byte.stderr == pytest.approx(alone[1].bits_per_byte.stderr, rel=1e-9)


def test_the_estimate_is_not_biased() -> None:
    """Flat rows of 20,000 tokens, most of the mass in the tail: the mean over positions is the exact KL."""
    random = np.random.default_rng(0)
    ours = log_softmax(random.normal(0, 2, (400, 20_000)).astype(np.float32))
    nothing = (np.zeros(400, np.float32), np.zeros(400, np.float32), np.empty(0, np.int32))
    for noise in (0.05, 0.5):
        theirs = log_softmax(ours + random.normal(0, noise, ours.shape).astype(np.float32))
        exact = exact_kl(ours, theirs)
        sampled = sample_distribution(ours, *nothing, seed=0)
        assert sampled.token_ids.shape == (400, TOP + SAMPLED)
        token_ids = sampled.token_ids.astype(np.int64)
        found = sampled_kl(sampled, np.take_along_axis(theirs, token_ids, axis=1))
        stderr = found.std() / 20
        assert abs(found.mean() - exact.mean()) < 4 * stderr
        assert stderr < 0.05 * exact.mean()


def test_a_model_against_itself_differs_by_nothing_at_all() -> None:
    model, text = random_model(3), cut_heldout(DOCUMENTS)
    found = against(model, model, text)
    assert (found.kl.value, found.kl_quantiles.max) == (0, 0)
    assert (found.same_top1.value, found.perplexity_ratio.value) == (1, 1)
    assert found.lost_mass is None
    assert found.sums.lost.sum() == 0


def test_quantiles_of_the_kl() -> None:
    found = against(random_model(5), random_model(4), cut_heldout(DOCUMENTS)).kl_quantiles
    assert 0 < found.median < found.p99 <= found.p999 <= found.max


def test_a_reference_is_run_once_and_read_from_disk_after(tmp_path: Path) -> None:
    reference, text = random_model(1), cut_heldout(DOCUMENTS)
    first = against(random_model(2), reference, text)
    reads = reference.reads
    second = against(random_model(2), reference, text)
    assert reference.reads == reads > 0
    assert (second.kl, second.kl_quantiles) == (first.kl, first.kl_quantiles)
    (file,) = (tmp_path / "references").iterdir()
    assert file.stat().st_size < 900 * first.tokens
    file.write_bytes(file.read_bytes()[:-100])  # cut short: it is made again
    assert against(random_model(2), reference, text).kl == first.kl
    assert reference.reads == 2 * reads


def test_another_reference_text_or_columns_is_another_file() -> None:
    model, text = random_model(1), cut_heldout(DOCUMENTS)
    windows = tokenize_windows("model", model, text)
    other = tokenize_windows("model", model, cut_heldout(DOCUMENTS[:2]))
    moved = map_token_ids(windows, np.arange(257)[::-1])
    files = {
        reference_file("a", windows, None), reference_file("b", windows, None),
        reference_file("a", other, None),
        reference_file("a", moved, None), reference_file("a", windows, SHARED),
        reference_file("a", windows, replace(SHARED, first_pieces=SHARED.first_pieces[::-1])),
    }  # fmt: skip
    assert len(files) == 6


def test_lost_mass_and_restriction_by_hand() -> None:
    """The reference spends a quarter on token 256, which has no column, and the rest as the model does."""
    reference = Random(logits=np.zeros((257, 257), np.float32))
    reference.logits[:, 256] = np.log(256 / 3)
    text = cut_heldout(DOCUMENTS)
    windows = tokenize_windows("model", reference, text)
    cached = cached_reference("reference", "it", lambda: reference, text, windows, SHARED)
    found = measure_divergence("model", Random(), cached)
    assert found.lost_mass is not None
    assert found.lost_mass.value == pytest.approx(0.25, rel=1e-5)
    assert found.kl.value == pytest.approx(np.log(257 / 256), rel=1e-3)  # the model spares 256 a share
    assert found.perplexity_ratio.value == pytest.approx(257 * 0.75 / 256, rel=1e-4)
    assert found.kl_first_piece == found.kl  # 256 has no first piece, so nothing else can be measured


def test_the_kl_by_first_pieces_from_disk_and_by_hand() -> None:
    """The reference spends a quarter on token 256, which the models spell 97 first; a model that puts that
    quarter on 97 is its equal, and one that spreads it over all tokens is not."""
    reference, knowing = (Random(logits=np.zeros((257, 257), np.float32)) for _ in range(2))
    reference.logits[:, 256] = np.log(256 / 3)
    knowing.logits[:, 97] = np.log(1 + 256 / 3)
    knowing.logits[:, 256] = -np.inf
    token_map = TokenMap(SHARED.ids, np.append(np.arange(256), 97))
    text = cut_heldout(DOCUMENTS)
    windows = tokenize_windows("model", reference, text)
    for _ in range(2):  # computed, and read
        cached = cached_reference("reference", "it", lambda: reference, text, windows, token_map)
        equal, blind = (
            measure_divergence("model", model, cached).kl_first_piece.value
            for model in (knowing, Random(logits=np.zeros((257, 257), np.float32)))
        )
        assert equal == pytest.approx(0, abs=1e-5)
        on_a = 0.25 + 0.75 / 256
        exact = on_a * np.log(on_a) + 255 * 0.75 / 256 * np.log(0.75 / 256) + np.log(257)
        assert blind == pytest.approx(exact, rel=1e-3)
    assert reference.reads == len(windows)


def test_overlapping_windows_score_every_byte_once_and_read_more() -> None:
    whole = "".join(f"word{number} " for number in range(400))
    parts = list(strides(whole, 200, 50))
    assert "".join(part for part, _ in parts) == whole
    assert parts[0][1] == ""
    for number, (part, before) in enumerate(parts):
        assert len(part) + len(before) <= 200
        assert whole[: sum(len(p) for p, _ in parts[:number])].endswith(before)
    assert min(len(before) for _, before in parts[8:]) > 100
    text, plain = cut_heldout([whole, whole[::-1]], None, 200, 50), cut_heldout([whole, whole[::-1]])
    assert text.nbytes == plain.nbytes
    assert text.sha256 != plain.sha256
    model = random_model(6)
    windows = tokenize_windows("model", model, text)
    assert sum(each.scored for each in windows) == text.nbytes
    # A model of pairs of bytes only sees the last one, so context spares it what a bos costs, and no more.
    exact = score_text("model", model, text, windows).bits.sum()
    steps = log_softmax(model.logits).astype(np.float64)
    first = sum(-steps[256, ord(each[0])] for each in (whole, whole[::-1]))
    rest = sum(-steps[ord(a), ord(b)] for each in (whole, whole[::-1]) for a, b in pairwise(each))
    assert exact == pytest.approx((first + rest) / np.log(2), rel=1e-6)


def test_a_stride_beyond_the_window_and_a_mute_model_are_refused() -> None:
    with pytest.raises(BadConfig, match="a stride of 300 bytes: expected 1 to 200"):
        cut_heldout(DOCUMENTS, None, 200, 300)
    model, text = random_model(1), cut_heldout(DOCUMENTS)
    model.logits[3:] = np.nan
    with pytest.raises(RunFailed, match="dull gave no finite probability to every token of window 1"):
        score_text("dull", model, text)
