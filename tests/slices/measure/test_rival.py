"""The rival: chosen on one text, measured on another, and looked for only where it takes minutes."""

from dataclasses import replace
from pathlib import Path

import pytest

from slices.checkpoint import open_checkpoint
from slices.errors import BadConfig
from slices.measure import rival as module
from slices.measure.compare_mode import CompareMode
from slices.measure.plain import PlainQuant
from slices.measure.plain_sizes import PlainSize, PlainType, plain_sizes
from slices.measure.rival import RivalText, cut_rival_text, find_rival, skip_reason
from tests.slices.gguf_fixtures import SLIDING, write_gemma3
from tests.slices.heal_fixtures import sentences

Q8, Q4 = PlainType("Q8_0", "llama.cpp"), PlainType("Q4_K_M", "llama.cpp")


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return write_gemma3(tmp_path / "parent", [SLIDING] * 2)


def text(verdict_documents: int = 8) -> RivalText:
    documents = sentences(30, 20).documents
    return cut_rival_text((), documents[:8], documents[8 : 8 + verdict_documents])


def test_the_rival_is_chosen_on_selection_text_alone(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is luckier on verdict text is not taken: its bits there are never even measured."""
    used = text()
    measured: list[tuple[PlainType, bool]] = []
    sizes = [PlainSize(Q4, 10, None), PlainSize(Q8, 20, None)]
    bits = {(Q4, True): 5.0, (Q8, True): 4.0, (Q4, False): 1.0, (Q8, False): 2.0}

    def quants(parent: Path, given: object, kinds: list[PlainType], *rest: object) -> list[PlainQuant]:
        chosen_on = given is used.selection
        measured.extend((kind, chosen_on) for kind in kinds)
        return [PlainQuant(kind=kind, bytes=1, bits=(bits[kind, chosen_on],)) for kind in kinds]

    monkeypatch.setattr(module, "plain_sizes", lambda parent, with_imatrix: sizes)
    monkeypatch.setattr(module, "plain_quants", quants)
    found = find_rival(parent, used, 20)
    assert found is not None
    assert (found.quant.kind, found.quant.bits, found.compared) == (Q8, (2.0,), 2)
    assert measured == [(Q4, True), (Q8, True), (Q8, False)]


def test_a_real_rival_is_of_the_verdict_text(parent: Path) -> None:
    used = text()
    largest = max(each.bytes for each in plain_sizes(parent, with_imatrix=False))
    found = find_rival(parent, used, largest, threads=1)
    assert found is not None
    assert found.quant.label == "BF16" and found.compared == 1
    assert len(found.quant.bits) == used.verdict.documents
    assert skip_reason(parent, used, largest) is None


def test_no_plain_quant_as_small_is_no_rival(parent: Path) -> None:
    least = min(each.bytes for each in plain_sizes(parent, with_imatrix=False))
    assert find_rival(parent, text(), least - 1) is None


def test_too_few_documents_are_said_before_anything_is_measured(
    parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "plain_quants", None)
    with pytest.raises(BadConfig, match="5 documents; a verdict needs at least 8"):
        find_rival(parent, text(5), 10**9)


def test_the_text_that_lacks_documents_is_named() -> None:
    documents = sentences(30, 20).documents
    with pytest.raises(BadConfig, match="the selection text: measuring needs at least two documents"):
        cut_rival_text(documents, documents[:1], documents[1:])


def test_what_takes_long_is_measured_on_request_only(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = text()
    least = min(each.bytes for each in plain_sizes(parent, with_imatrix=False))
    assert skip_reason(parent, used, 10**9, CompareMode.AUTO) is None
    assert "--compare always" in str(skip_reason(parent, used, 10**9, CompareMode.NEVER))
    monkeypatch.setattr(module, "MAX_AUTO_BYTES", 0)
    assert "the parent is big" in str(skip_reason(parent, used, 10**9))
    assert skip_reason(parent, used, 10**9, CompareMode.ALWAYS) is None
    nbytes = open_checkpoint(parent).nbytes
    monkeypatch.setattr(module, "MAX_AUTO_BYTES", nbytes)
    many = [PlainSize(kind, 10, None) for kind in (Q4, Q8)]
    monkeypatch.setattr(module, "plain_sizes", lambda parent, with_imatrix: many)
    assert "2 plain quants of the parent are to be measured" in str(skip_reason(parent, used, 10**9))
    assert "2 plain quants" in str(skip_reason(parent, replace(used, calibration=("x",)), 10**9))
    assert skip_reason(parent, used, least - 10**9) is None, "alone without a measurement"
