"""Reports: bits per byte, their errors and differences, by hand."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from slices.errors import BadConfig, RunFailed
from slices.estimate import Estimate, ratio
from slices.report.config import EvalConfig
from slices.report.evaluate import evaluate
from slices.runtime import Runtime
from slices.runtimes.scripted import ScriptedRuntime
from tests.slices.report_fakes import DOCUMENTS, Biased, fake, report_json


def score(folder: Path, texts: dict[str, list[str]], runtime: Runtime) -> Estimate:
    config = EvalConfig(max_bytes=None)
    report = evaluate([fake(folder)], texts, config, opener=lambda model, config: runtime)
    result = report.models["fake"].domains["d"]
    return ratio(np.array(result.bits), np.array(result.bytes))


def test_uniform_bytes_cost_eight_bits_exactly(tmp_path: Path) -> None:
    found = score(tmp_path, {"d": ["é🙂 plain", "more text" * 900]}, ScriptedRuntime())
    assert found.value == pytest.approx(8.0, abs=1e-6)
    assert found.stderr == pytest.approx(0.0, abs=1e-6)


def test_value_and_error_by_hand(tmp_path: Path) -> None:
    """Documents of 4, 2 and 2 bytes and 10, 4 and 6 bits: 20 / 8 = 2.5 bits a byte; the residuals
    10 - 2.5*4 = 0, 4 - 2.5*2 = -1, 6 - 2.5*2 = 1 give sqrt(3/2 * 2) / 8."""
    found = score(tmp_path, {"d": ["xxab", "ab", "xx"]}, Biased())
    assert found.value == pytest.approx(2.5)
    assert found.stderr == pytest.approx(math.sqrt(3) / 8)


def test_difference_is_taken_document_by_document(tmp_path: Path) -> None:
    runtimes: dict[str, Runtime] = {"low": Biased(bits=2), "high": Biased(bits=3)}
    low, high = fake(tmp_path, "low"), fake(tmp_path, "high")
    texts = {"d": ["xxab", "ab", "xx"]}
    report = evaluate([low, high], texts, EvalConfig(), low, opener=lambda s, config: runtimes[s.name])
    found = report_json(report)["slices"]
    assert list(found) == ["low", "high"]
    assert found["low"]["domains"]["d"]["vs_baseline"] is None
    difference = found["high"]["domains"]["d"]["vs_baseline"]
    assert difference == {"value": pytest.approx(1), "low": None, "high": None, "p": None, "n": 3}
    assert found["high"]["domains"]["d"]["bits_per_byte"]["stderr"] > 0.2
    assert "no KL to low" in found["high"]["notes"][0]  # neither has a tokenizer to compare


def test_eight_documents_are_enough_for_an_interval_and_a_p_value(tmp_path: Path) -> None:
    runtimes: dict[str, Runtime] = {"low": Biased(bits=2), "high": Biased(bits=3)}
    low, high = fake(tmp_path, "low"), fake(tmp_path, "high")
    texts = {"d": ["xxab", "ab"] * 4}
    report = evaluate([low, high], texts, EvalConfig(), low, opener=lambda s, config: runtimes[s.name])
    found = report_json(report)["slices"]["high"]["domains"]["d"]["vs_baseline"]
    assert found == pytest.approx({"value": 1, "low": 1, "high": 1, "p": 2 / 2**8, "n": 8})


def test_ratio_matches_resampling() -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(50, 500, 200).astype(float)
    bits = sizes * random.normal(2, 0.5, 200)
    again = [random.integers(0, 200, 200) for _ in range(2000)]
    spread = np.std([bits[rows].sum() / sizes[rows].sum() for rows in again])
    assert ratio(bits, sizes).stderr == pytest.approx(spread, rel=0.1)


def test_one_document_has_no_error(tmp_path: Path) -> None:
    for texts in (["only one"], ["one", ""], []):
        with pytest.raises(BadConfig, match="domain 'd': measuring needs at least two documents"):
            score(tmp_path, {"d": texts}, ScriptedRuntime())


def test_documents_of_one_byte_count(tmp_path: Path) -> None:
    assert score(tmp_path, {"d": ["a", "b"]}, ScriptedRuntime()).value == pytest.approx(8)


class Mute(ScriptedRuntime):
    """A tokenizer that loses all text."""

    def encode(self, text: str) -> list[int]:
        return [256]


class Broken(ScriptedRuntime):
    """A model whose weights are no numbers."""

    def distributions(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        yield np.full((len(tokens) - 1, 257), np.nan, np.float32)


@pytest.mark.parametrize(
    ("runtime", "message"), [(Mute(), "gave 1 tokens"), (Broken(), "no finite probability")]
)
def test_bad_scores_stop_the_run(runtime: Runtime, message: str, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=f"fake on d:? .*{message}"):
        score(tmp_path, {"d": DOCUMENTS}, runtime)
