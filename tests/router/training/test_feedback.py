"""Feedback files: corrected labels, ratings, and what is wrong with them."""

import json
from pathlib import Path

import pytest

from router.errors import BadTraining
from router.training.dataset import LabelledQuery
from router.training.feedback import RejectedAnswer, read_feedback

DOMAINS = {"law": "law", "medicine": "medicine", "general": "general", "lex": "law", "gen": "general"}


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def labels(path: Path) -> dict[str, str]:
    return {query.text: query.domain for query in read_feedback(path, DOMAINS).labelled}


def test_corrected_labels(tmp_path: Path) -> None:
    path = write(
        tmp_path / "f.jsonl",
        {"query": "a", "domain": "law", "expert": "gen"},
        {"query": "b", "domain": "ood"},
        {"query": "a", "domain": "medicine"},
    )
    feedback = read_feedback(path, DOMAINS)
    assert feedback.labelled == (
        LabelledQuery("a", "medicine", source="feedback"),  # the last label counts
        LabelledQuery("b", "general", source="feedback"),
    )
    assert (feedback.rejected, feedback.unlabelled) == ((), 0)


@pytest.mark.parametrize("up", ["up", 1])
def test_a_rating_up_is_a_label(tmp_path: Path, up: object) -> None:
    path = write(
        tmp_path / "f.jsonl",
        {"query": "a", "expert": "lex", "rating": up},
        {"prompt": "b", "domain": "medicine", "rating": up},
    )
    assert labels(path) == {"a": "law", "b": "medicine"}


@pytest.mark.parametrize("down", ["down", -1])
def test_a_rating_down_is_no_label_unless_it_is_corrected(tmp_path: Path, down: object) -> None:
    path = write(
        tmp_path / "f.jsonl",
        {"query": "a", "expert": "lex", "rating": down},
        {"query": "b", "domain": "medicine", "rating": down},
        {"query": "c", "expert": "lex", "domain": "medicine", "rating": down},
    )
    feedback = read_feedback(path, DOMAINS)
    assert feedback.rejected == (RejectedAnswer("a", "law"), RejectedAnswer("b", "medicine"))
    assert labels(path) == {"c": "medicine"}


def test_lines_that_say_nothing_are_counted(tmp_path: Path) -> None:
    logged = {"prompt": "a", "expert": "lex", "confidence": 0.9, "status": 200}
    assert read_feedback(write(tmp_path / "f.jsonl", logged, logged), DOMAINS).unlabelled == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"domain": "law"}, "query: Field required"),
        ({"query": " ", "domain": "law"}, "not blank"),
        ({"query": "a", "domain": "medecine"}, "called 'medecine'; there are law, medicine"),
        ({"query": "a", "rating": "up"}, "the `expert` or the `domain`"),
        ({"query": "a", "domain": "law", "rating": "fine"}, "rating: "),
        ({"query": "a", "domain": 3}, "domain: Input should be a valid string"),
        ([], "Input should be an object"),
    ],
)
def test_malformed_lines_are_numbered(tmp_path: Path, line: object, message: str) -> None:
    path = write(tmp_path / "f.jsonl", {"query": "a", "domain": "law"}, line)
    with pytest.raises(BadTraining, match=f"f.jsonl, line 2: .*{message}"):
        read_feedback(path, DOMAINS)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadTraining, match="cannot read"):
        read_feedback(tmp_path / "none.jsonl", DOMAINS)
