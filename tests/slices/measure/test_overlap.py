"""Held-out text that was seen is found, and does not measure."""

import pytest

from slices.errors import BadConfig
from slices.measure.overlap import overlap, runs, without_seen


def words(first: int, count: int) -> str:
    return " ".join(f"word{number}" for number in range(first, first + count))


def test_a_seen_document_is_left_out_and_a_shared_phrase_is_not() -> None:
    seen, new = words(0, 100), words(1000, 100)
    phrase = words(0, 13) + " " + words(2000, 200)  # one of 201 runs
    fresh, found = overlap([seen, new, phrase], [words(0, 500)])
    assert fresh == [new, phrase]
    assert (found.documents, found.touched, found.seen) == (3, 2, 1)
    assert found.share == pytest.approx((88 + 0 + 1) / (88 + 88 + 201))


def test_twelve_shared_words_are_no_run() -> None:
    _, found = overlap([words(0, 12) + " " + words(1000, 50)], [words(0, 500)])
    assert found.touched == 0


def test_case_and_punctuation_do_not_hide_a_copy() -> None:
    text = words(0, 40)
    fresh, _ = overlap([text.upper().replace(" ", ", ")], [text])
    assert fresh == []


def test_a_short_document_is_one_run_and_an_empty_one_none() -> None:
    assert len(list(runs("Only four words here"))) == 1
    assert list(runs(" . ")) == []
    assert overlap(["Only four words here"], ["only four words here"])[0] == []


def test_text_that_is_all_seen_is_refused_by_name() -> None:
    documents = [words(0, 60), words(100, 60), words(200, 60)]
    with pytest.raises(BadConfig, match=r"'law' is not held out: 2 of its 3 documents"):
        without_seen({"law": documents}, {"biochem": documents[:2]})


def test_calibration_text_of_every_domain_counts() -> None:
    documents = [words(0, 60), words(100, 60), words(200, 60)]
    fresh, found = without_seen({"law": documents}, {"biochem": documents[:1], "law": []})
    assert fresh == {"law": documents[1:]}
    assert found["law"].seen == 1
