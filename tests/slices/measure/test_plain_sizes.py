"""Plain quants by size: predicted to the byte, and which may be the best of a size."""

from pathlib import Path

import pytest

from slices.measure import plain_sizes as module
from slices.measure.plain_sizes import PlainSize, PlainType, plain_sizes
from slices.quant.imatrix import collect
from slices.quant.quantize import quantize
from tests.picos import write_gemma3
from tests.slices.heal_fixtures import TYPES, sentences


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """Rows that 256 divides, so that types are what they are called."""
    return write_gemma3(tmp_path / "parent", TYPES[:2], hidden_size=256, intermediate_size=256)


def test_labels_say_how_a_quant_is_made() -> None:
    assert PlainType("Q8_0", "llama.cpp").label == "Q8_0"
    assert PlainType("IQ2_S", "Q4_K", imatrix=True).label == "IQ2_S with Q4_K embeddings, imatrix"


def test_sizes_are_predicted_to_the_byte_and_cached(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = plain_sizes(parent, with_imatrix=True)
    assert [each.bytes for each in found] == sorted(each.bytes for each in found)
    kinds = {each.kind: each.bytes for each in found}
    both = {each.imatrix for each in kinds if (each.type, each.embedding_type) == ("Q4_K_M", "Q4_K")}
    assert both == {True, False}, "on a grid of Q4_K an importance matrix may cost bits"
    assert {"IQ1_S", "IQ4_XS", "IQ4_NL", "Q3_K_S", "BF16"} <= {each.type for each in kinds}
    imatrix = collect(parent, sentences().documents, tokens=200)
    for kind in (PlainType("IQ2_XXS", "IQ3_S", True), PlainType("Q8_0", "Q4_K")):
        made = quantize(
            parent,
            kind.type,
            tmp_path / "plain.gguf",
            force=True,
            imatrix=imatrix if kind.imatrix else None,
            embedding_type=kind.embedding_type,
        )
        assert made.bytes == kinds[kind]
    monkeypatch.setattr(module, "predict_products", None)
    assert plain_sizes(parent, with_imatrix=True) == found


def test_without_an_importance_matrix_types_that_need_one_are_left_out(parent: Path) -> None:
    found = {each.kind for each in plain_sizes(parent, with_imatrix=False)}
    assert not any(each.imatrix for each in found)
    assert {"Q2_K", "IQ4_XS"} <= {each.type for each in found}
    assert not {"IQ1_S", "IQ2_M"} & {each.type for each in found}


def test_what_another_surely_beats_is_no_rival(parent: Path) -> None:
    sizes = {each.kind: each for each in plain_sizes(parent, with_imatrix=True)}
    largest = sizes[PlainType("BF16", "llama.cpp")]
    assert largest.beaten_at is None and largest.rivals(largest.bytes)
    assert [each for each in sizes.values() if each.rivals(largest.bytes)] == [largest]
    q8, q6 = sizes[PlainType("Q8_0", "llama.cpp")], sizes[PlainType("Q6_K", "llama.cpp", True)]
    assert q6.beaten_at is not None and q6.beaten_at <= q8.bytes and not q6.rivals(q8.bytes)
    iq4, q4 = PlainType("IQ4_XS", "llama.cpp", True), PlainType("Q4_K_S", "llama.cpp", True)
    both = max(sizes[iq4].bytes, sizes[q4].bytes)
    assert sizes[iq4].rivals(both) and sizes[q4].rivals(both), "a quarter of a bit decides nothing"
    assert not any(each.rivals(min(each.bytes for each in sizes.values()) - 1) for each in sizes.values())


def test_a_size_is_a_rival_until_it_is_beaten() -> None:
    size = PlainSize(PlainType("Q2_K", "Q2_K"), bytes=100, beaten_at=200)
    assert [size.rivals(nbytes) for nbytes in (99, 100, 199, 200)] == [False, True, True, False]
