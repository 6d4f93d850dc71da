"""The verdict from planted figures: what each says, and below how many documents nothing is said."""

import numpy as np
import pytest

from mom.workflows.compare import dominated_by, show_verdict, verdict_json
from slices.manifest import Verdict
from slices.measure.dominated import (
    alone_verdict,
    correct_verdicts,
    unknown_verdict,
    verdict,
    verdict_sentence,
)
from slices.measure.plain import PlainQuant
from slices.measure.plain_sizes import PlainType
from slices.measure.rival import Rival, RivalText, cut_rival_text
from slices.text.corpus import Corpus
from tests.slices.heal_fixtures import sentences

SIZES = np.linspace(100.0, 300.0, 10)
BITS = SIZES * np.array([0.8, 0.9, 0.75, 0.85, 1.0, 0.7, 0.95, 0.8, 0.9, 0.85])
NOISE = np.array([0.4, -0.3, 0.1, -0.4, 0.3, -0.1, 0.2, -0.2, 0.25, -0.25])


def text() -> RivalText:
    documents = sentences(30, 20).documents
    return cut_rival_text(documents[:10], documents[10:20], documents[20:])


def rival(bits: np.ndarray) -> Rival:
    quant = PlainQuant(kind=PlainType("Q3_K_M", "llama.cpp"), bytes=90, bits=tuple(bits.tolist()))
    return Rival(quant=quant, compared=3)


@pytest.mark.parametrize(("shift", "expected"), [(0.1, "better"), (-0.1, "dominated"), (0.0, "level")])
def test_the_verdict_is_of_paired_differences(shift: float, expected: str) -> None:
    """Noise between documents is large; what the two differ by is the same everywhere, so it is seen."""
    noise = NOISE * (0.001 if shift else 1)
    used = text()
    found = verdict("bf16", "law", BITS, SIZES, rival(BITS + (shift + noise) * SIZES), used)
    assert (found.verdict, found.compared, found.n) == (expected, 3, 10)
    assert found.p is not None and (found.p < 0.05) == (expected != "level")
    assert found.low is not None and found.high is not None and found.difference is not None
    assert found.low < found.difference < found.high
    assert (found.low < 0 < found.high) == (expected == "level")
    assert (found.data, found.selection) == (used.verdict.sha256, used.selection.sha256)
    assert found.data != found.selection
    assert found.calibration == Corpus("files", used.calibration).sha256
    assert ("DOMINATED" in verdict_sentence(found)) == (expected == "dominated")
    assert "10 documents" in verdict_sentence(found)


def test_verdicts_that_are_read_together_are_corrected() -> None:
    """A difference that is found alone is not one where it is the best of twenty comparisons of noise."""
    used = text()
    alone = verdict("bf16", "law", BITS, SIZES, rival(BITS + (0.3 + NOISE) * SIZES), used)
    clear = verdict("bf16", "law", BITS, SIZES, rival(BITS + (0.3 + 0.001 * NOISE) * SIZES), used)
    assert alone.verdict == clear.verdict == "better"
    assert alone.p is not None and 0.05 / 20 < alone.p < 0.05
    noise = verdict("bf16", "law", BITS, SIZES, rival(BITS + NOISE * SIZES), used)
    unknown = unknown_verdict("bf16", "law", "too big")
    found = correct_verdicts(
        {"alone": alone, "clear": clear, "unknown": unknown} | {str(n): noise for n in range(18)}
    )
    assert {name: each.verdict for name, each in found.items() if not name.isdigit()} == {
        "alone": "level",
        "clear": "better",
        "unknown": "unknown",
    }
    assert found["alone"].p == pytest.approx(alone.p * 19) and found["unknown"] == unknown
    assert (found["alone"].low, found["alone"].high) == (alone.low, alone.high)


def test_few_documents_make_no_verdict() -> None:
    """However large the difference: with seven documents the test cannot be trusted."""
    found = verdict("bf16", "law", BITS[:7], SIZES[:7], rival(BITS[:7] * 3), text())
    assert found.verdict == "unknown"
    assert "7 documents; a verdict needs at least 8" in verdict_sentence(found)


def test_without_a_rival_nothing_is_claimed() -> None:
    found = verdict("bf16", "law", BITS, SIZES, None, text())
    assert found == alone_verdict("bf16", "law")
    assert (found.verdict, found.rival, found.difference) == ("alone", None, None)
    sentence = verdict_sentence(found)
    assert sentence.startswith("no rival as small") and "nothing is claimed" in sentence
    assert "better" not in sentence and "dominated" not in sentence
    assert dominated_by(found) == "no rival as small"


def test_what_is_not_known_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    found = unknown_verdict("bf16", "law", "no text")
    assert "not known: no text" in verdict_sentence(found)
    assert dominated_by(found) == dominated_by(None) == "not measured"
    show_verdict(verdict_json(found))
    assert "no text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "cell"), [("dominated", "Q8_0, 3 B"), ("level", "level with Q8_0, 3 B"), ("better", "nothing")]
)
def test_the_list_names_the_rival(name: str, cell: str) -> None:
    found = Verdict.model_validate(
        {"variant": "bf16", "domain": "law", "verdict": name, "rival": "Q8_0", "rival_bytes": 3}
    )
    assert dominated_by(found) == cell
