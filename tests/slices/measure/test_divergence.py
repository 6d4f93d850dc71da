"""KL and its company: numbers by hand, real files against their checkpoint, cuts against their parents."""

import math
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from slices import demo_model
from slices.errors import RunFailed
from slices.measure.divergence import Divergence, measure_against, measure_divergence
from slices.measure.heldout import Heldout, cut_heldout
from slices.measure.reference import compute_reference
from slices.measure.reference_cache import cached_reference
from slices.measure.token_map import token_map
from slices.measure.tokenized import tokenize_windows
from slices.quant.quantize import quantize
from slices.runtime import Runtime
from slices.runtimes.open import open_runtime
from slices.runtimes.scripted import ScriptedRuntime
from tests.paths import PROSE as PROSE_PATH
from tests.slices.gguf_fixtures import FULL, SAMPLES, SLIDING, cut_by_prose, visible_and_hidden, write_gemma3

TEXT = cut_heldout(list(SAMPLES.values()))
PROSE = PROSE_PATH.read_text(encoding="utf-8")


@dataclass
class Loaded(ScriptedRuntime):
    """Four tokens, a bos being 0 and a byte its value modulo 4; what comes next depends on the last token."""

    table: dict[int, Sequence[float]] = field(default_factory=dict)

    def encode(self, text: str) -> list[int]:
        return [0, *(byte % 4 for byte in text.encode())]

    def distributions(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        with np.errstate(divide="ignore"):
            yield np.log(np.array([self.table[token] for token in tokens[:-1]], dtype=np.float32))


EVEN = Loaded(table=dict.fromkeys(range(4), (0.25, 0.25, 0.25, 0.25)))
BENT = Loaded(table={0: (0.5, 0.25, 0.125, 0.125), **dict.fromkeys((1, 2, 3), (0.25, 0.25, 0.25, 0.25))})


def held_against(reference: Runtime, model: Runtime, text: Heldout) -> Divergence:
    return measure_divergence("model", model, compute_reference("reference", reference, text))


def test_by_hand() -> None:
    """Documents "aa" (bos 1 1) and "ba" (bos 2 1) and "d" (bos 0). After the bos, KL(even || bent) is
    ln(1/4) - (ln(1/2) + ln(1/4) + 2 ln(1/8)) / 4 = ln(2) / 4 nat; after 1, 2 and 3 it is 0."""
    found = held_against(EVEN, BENT, cut_heldout(["aa", "ba", "d"]))
    assert found.tokens == 5
    assert found.kl.value == pytest.approx(3 / 5 * math.log(2) / 4, rel=1e-6)
    residuals = [1 - 2 * 3 / 5, 1 - 2 * 3 / 5, 1 - 3 / 5]  # of ln(2) / 4 each
    spread = math.sqrt(3 / 2 * sum(r * r for r in residuals)) / 5
    assert found.kl.stderr == pytest.approx(spread * math.log(2) / 4, rel=1e-6)
    assert found.kl_quantiles.p99 == pytest.approx(math.log(2) / 4, rel=1e-6)
    assert found.same_top1.value == 1.0
    assert found.reference_bits_per_byte.value == pytest.approx(2.0, rel=1e-6)  # 2 bits a token, even
    assert found.bits_per_byte.value == pytest.approx((2 + 2 + 3 + 2 + 1) / 5, rel=1e-6)
    assert found.against.value == pytest.approx(0.0, abs=1e-6)
    assert found.perplexity_ratio.value == pytest.approx(1.0, abs=1e-6)
    assert found.lost_mass is None
    assert found.kl_first_piece == found.kl
    assert found.sums.bits == pytest.approx([4, 5, 1], rel=1e-6)


def test_the_other_way_round_is_another_number() -> None:
    """KL(bent || even) after the bos is -H(bent) + ln(4) = (2 - 1.75) bits: the reference comes first."""
    found = held_against(BENT, EVEN, cut_heldout(["aa", "ba", "d"]))
    assert found.kl.value == pytest.approx(3 / 5 * 0.25 * math.log(2), rel=1e-6)
    bits = found.sums.bits - found.sums.reference_bits
    assert bits == pytest.approx([0, -1, 1], abs=1e-6)
    other = Loaded(table=dict.fromkeys(range(4), (0.1, 0.2, 0.3, 0.4)))
    assert held_against(BENT, other, cut_heldout(["d", "d"])).same_top1.value == 0.0


def test_perplexity_ratio_is_that_of_the_perplexities() -> None:
    text = cut_heldout(["abcd" * 9, "dcba" * 5, "aabb"])
    found = held_against(EVEN, Loaded(table=dict.fromkeys(range(4), (0.1, 0.2, 0.3, 0.4))), text)
    perplexities = [2 ** (bits.sum() / found.tokens) for bits in (found.sums.bits, found.sums.reference_bits)]
    assert found.perplexity_ratio.value == pytest.approx(perplexities[0] / perplexities[1], rel=1e-9)
    assert 0 < found.perplexity_ratio.stderr < 0.5


def test_what_the_reference_calls_impossible_costs_nothing() -> None:
    found = held_against(ScriptedRuntime(), ScriptedRuntime(), TEXT)
    assert found.kl.value == pytest.approx(0.0, abs=1e-6)
    assert found.bits_per_byte.value == pytest.approx(8.0, rel=1e-6)


class Mute(ScriptedRuntime):
    """A model that loses all text."""

    def encode(self, text: str) -> list[int]:
        return [256]


class Short(ScriptedRuntime):
    """A model that gives up a token early."""

    def distributions(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        yield from super().distributions(tokens if len(tokens) < 3 else tokens[:-1])


def test_bad_models_are_named() -> None:
    nothing = Loaded(table=dict.fromkeys(range(4), (np.nan,) * 4))
    certain = Loaded(table=dict.fromkeys(range(4), (0.5, 0.5, 0.0, 0.0)))
    never = Loaded(table=dict.fromkeys(range(4), (0.5, 0.5, 0.0, 0.0)))
    with pytest.raises(RunFailed, match="model gave no finite probability to every token of window 1"):
        held_against(EVEN, nothing, TEXT)
    with pytest.raises(RunFailed, match="model gave no finite probability"):
        held_against(EVEN, certain, cut_heldout(["b", "b"]))
    with pytest.raises(RunFailed, match="model calls a token impossible that reference does not"):
        held_against(EVEN, never, cut_heldout(["a", "a"]))
    with pytest.raises(RunFailed, match="reference gave no finite probability"):
        held_against(nothing, EVEN, TEXT)
    with pytest.raises(RunFailed, match="model has 257 tokens, but reference was run for 4"):
        held_against(EVEN, ScriptedRuntime(), TEXT)
    with pytest.raises(RunFailed, match="model gave 18 distributions for the 19 tokens of window 1"):
        held_against(ScriptedRuntime(), Short(), cut_heldout(["The quick brown fox", "x"]))
    with pytest.raises(RunFailed, match="reference: window 1 gave 1 tokens; expected bos and one more"):
        held_against(Mute(), ScriptedRuntime(), TEXT)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_named_and_leaves_nothing(mom_home: Path) -> None:
    text = cut_heldout(["a" * 1800 + " " + "b" * 1799, "c"])
    windows = tokenize_windows("reference", ScriptedRuntime(), text)
    references = mom_home / "references"
    with (
        files_of_at_most(100_000),
        pytest.raises(RunFailed, match=f"{references}/.* could not be written: File too large"),
    ):
        cached_reference("reference", "identity", ScriptedRuntime, text, windows)
    assert visible_and_hidden(references) == set()
    found = cached_reference("reference", "identity", ScriptedRuntime, text, windows)
    assert found.distribution.token_ids.shape == (3601, 64 + 32)
    assert len(visible_and_hidden(references)) == 1


@pytest.fixture(scope="module")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_gemma3(tmp_path_factory.mktemp("pico") / "pico", [SLIDING, FULL, SLIDING])
    for kind in ("BF16", "Q8_0", "Q2_K"):
        quantize(folder, kind, folder / f"{kind}.gguf", threads=1)
    return folder


@pytest.mark.parametrize("file", [None, Path("BF16.gguf")], ids=["torch", "llama"])
def test_distributions_sum_to_one_and_hold_the_scored_tokens(pico: Path, file: Path | None) -> None:
    runtime = open_runtime(pico, file, threads=1)
    tokens = runtime.encode(SAMPLES["code"] + SAMPLES["french"])
    if file is not None:
        runtime._chunk = 20  # type: ignore[attr-defined]
    parts = list(runtime.distributions(tokens))  # all at once: a chunk must not change with the next
    whole = np.concatenate(parts)
    assert (file is None) == (len(parts) == 1)
    assert whole.dtype == np.float32
    assert np.exp(whole.astype(np.float64)).sum(axis=1) == pytest.approx(1, abs=2e-6)
    picked = whole[np.arange(len(whole)), tokens[1:]]
    assert picked == pytest.approx(runtime.logprobs(tokens), abs=1e-5)
    assert list(runtime.distributions(tokens[:1])) == []
    runtime.close()


def test_fewer_bits_are_farther_away(pico: Path) -> None:
    reference = open_runtime(pico, None, threads=1)
    seen: list[tuple[str, int, int]] = []
    found = compute_reference("pico", reference, TEXT, progress=lambda *step: seen.append(step))
    reference.close()
    far = {}
    for kind in ("BF16", "Q8_0", "Q2_K"):
        model = open_runtime(pico, Path(f"{kind}.gguf"), threads=1)
        far[kind] = measure_divergence(kind, model, found)
        model.close()
    assert seen == [("evaluate pico", n, len(TEXT.windows)) for n in range(1, len(TEXT.windows) + 1)]
    assert 0 <= far["BF16"].kl.value < 1e-4
    assert far["BF16"].same_top1.value > 0.97
    assert far["BF16"].kl.value < 0.2 * far["Q8_0"].kl.value
    assert far["Q8_0"].kl.value < 0.2 * far["Q2_K"].kl.value
    assert far["Q2_K"].kl.stderr > 0
    assert far["Q2_K"].kl_quantiles.p99 > far["Q2_K"].kl.value
    assert {each.data for each in far.values()} == {TEXT.sha256}
    assert far["Q2_K"].reference_bits_per_byte == far["BF16"].reference_bits_per_byte


@pytest.fixture(scope="module")
def cut_pico(pico: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cut_by_prose(pico, tmp_path_factory.mktemp("cut"))


def test_a_cut_vocabulary_loses_mass_and_nothing_else(cut_pico: Path, pico: Path) -> None:
    """The slice's logits are the parent's of the kept rows. So on the kept tokens nothing differs, and the
    slice's surprise is below the parent's by exactly what the parent gave to the rest."""
    small, parent = open_runtime(cut_pico, threads=1), open_runtime(pico, threads=1)
    shared = token_map(cut_pico, pico)
    found = measure_against("slice", small, parent, shared, TEXT)
    assert abs(found.kl.value) < 1e-6
    assert found.kl_first_piece.value > 0.01  # the same logits, which expect no spelling
    assert found.same_top1.value > 0.99  # ties apart
    assert found.lost_mass is not None
    assert 0.01 < found.lost_mass.value < 0.9
    assert 0 < found.lost_mass.stderr < found.lost_mass.value
    reference = compute_reference("parent", parent, TEXT, tokenize_windows("slice", small, TEXT), shared)
    saved = np.log2(1 - reference.distribution.lost_mass.astype(np.float64)).sum()
    assert (found.sums.bits - found.sums.reference_bits).sum() == pytest.approx(saved, rel=1e-4)
    other = quantize(cut_pico, "Q2_K", threads=1)
    worse = measure_against("Q2_K", open_runtime(cut_pico, other.path, threads=1), parent, shared, TEXT)
    assert worse.kl.value > 0.001
    assert worse.lost_mass == found.lost_mass  # the parent's alone
    small.close()
    parent.close()


def test_the_kl_by_first_pieces_is_that_of_summed_distributions(
    cut_pico: Path, pico: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lost token's probability is added up by hand, at every position of the text."""
    monkeypatch.setattr("slices.measure.sampled_distribution.TOP", 100_000)  # every token: an exact KL
    small, parent = open_runtime(cut_pico, threads=1), open_runtime(pico, threads=1)
    shared = token_map(cut_pico, pico)
    found = measure_against("slice", small, parent, shared, TEXT)
    total = 0.0
    for window in tokenize_windows("slice", small, TEXT):
        ours = np.concatenate([*small.distributions(window.tokens)]).astype(np.float64)
        own = shared.ids[list(window.tokens)].tolist()
        theirs = np.exp(np.concatenate([*parent.distributions(own)]).astype(np.float64))
        summed = np.zeros_like(ours)
        for token, piece in enumerate(shared.first_pieces):
            summed[:, piece] += theirs[:, token] if piece >= 0 else 0
        summed /= summed.sum(axis=1, keepdims=True)
        total += (summed * (np.log(summed) - ours)).sum()
    assert found.kl_first_piece.value == pytest.approx(total / found.tokens, rel=1e-4)
    small.close()
    parent.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_real_model(tmp_path: Path) -> None:
    """Gemma 3 270M: BF16 is the checkpoint but for rounding, and each type is farther than the one above."""
    folder = demo_model.ensure()
    parts = [PROSE[at : at + 900] for at in range(0, 2700, 900)]
    text = cut_heldout(parts)
    model = open_runtime(folder, threads=1)
    far = {}
    reference = compute_reference("checkpoint", model, text)
    model.close()
    for kind in ("BF16", "Q8_0", "Q4_K_M", "Q2_K"):
        done = quantize(folder, kind, tmp_path / f"{kind}.gguf")
        model = open_runtime(folder, done.path)
        far[kind] = measure_divergence(kind, model, reference)
        model.close()
    assert 1e-6 < far["BF16"].kl.value < 5e-4
    kls = [far[kind].kl.value for kind in ("BF16", "Q8_0", "Q4_K_M", "Q2_K")]
    assert kls == sorted(kls)
    assert far["Q2_K"].perplexity_ratio.value > 1.1
