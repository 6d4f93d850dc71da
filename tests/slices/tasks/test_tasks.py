"""Tasks: scoring by hand and with a scripted model, a real model's log-likelihoods, the sandbox."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from slices.errors import BadConfig, NotFound, PromptTooLong
from slices.runtimes.open import open_runtime
from slices.runtimes.scripted import ScriptedRuntime
from slices.runtimes.softmax import log_softmax
from slices.tasks.generation import (
    code_generation,
    code_prompt,
    last_number_matches,
    math_word_problems,
    predict_last_words,
    split_last_word,
    unit_tests,
)
from slices.tasks.loglikelihood import encode_pair, loglikelihoods, truncate_left
from slices.tasks.multiple_choice import LETTER, TEXT, letter_prompt, multiple_choice, predict_letter
from slices.tasks.questions import Question, read_questions, sample_questions
from slices.tasks.sandbox import passes
from tests.slices.gguf_fixtures import FULL, SAMPLES, SLIDING, write_gemma3

QUESTION = {"question": "Which one is blue?", "choices": ["sky", "grass"], "answer": 0, "domain": "law"}


@dataclass
class Biased(ScriptedRuntime):
    """A byte model that gives the bytes of `favoured` higher logits."""

    favoured: str = ""

    def distributions(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        logits = np.zeros((len(tokens) - 1, 257), np.float32)
        logits[:, list(self.favoured.encode())] = 2.0
        yield log_softmax(logits)


def question(**other: object) -> Question:
    return Question.model_validate({**QUESTION, **other})


def test_the_most_likely_letter_and_text_are_chosen() -> None:
    questions = [question(), question(answer=1), question(question="Another?")]
    found = multiple_choice(Biased(favoured="Bsky"), questions)
    assert found[LETTER].scores.tolist() == [0, 1, 0]
    assert found[TEXT].scores.tolist() == [1, 0, 1]
    assert found[LETTER].mean.value == pytest.approx(1 / 3)
    assert found[LETTER].mean.stderr == pytest.approx(1 / 3)
    assert found[TEXT].data_sha256 == found[LETTER].data_sha256


def test_the_prompt_is_that_of_mmlu() -> None:
    assert letter_prompt(question(subject="high_school_physics")) == (
        "The following are multiple choice questions (with answers) about high school physics.\n\n"
        "Which one is blue?\nA. sky\nB. grass\nAnswer:"
    )


def test_text_scores_are_normalized_by_length() -> None:
    even = question(choices=["a", "a" * 40], answer=1)
    logs = [each.logprob for each in loglikelihoods(ScriptedRuntime(), "Q:", ["a", "a" * 40])]
    assert logs[0] > logs[1] == pytest.approx(40 * logs[0])
    assert predict_letter(ScriptedRuntime(), even) == 0


@pytest.mark.parametrize("max_length", [None, 12])
def test_loglikelihoods_match_the_models_logprobs(tmp_path: Path, max_length: int | None) -> None:
    """One token or several, alone or together, with a context that fits and one that does not."""
    runtime = open_runtime(write_gemma3(tmp_path / "m", [SLIDING, FULL]))
    context = next(iter(SAMPLES.values()))[:60]
    continuations = [" a", " b", " the harbour", "x" * 3]
    together = loglikelihoods(runtime, context, continuations, max_length)
    assert {len(encode_pair(runtime, context, each)[1]) for each in continuations} > {1}
    for each, found in zip(continuations, together, strict=True):
        before, after = encode_pair(runtime, context, each)
        tokens = truncate_left(before, after, max_length)
        assert max_length is None or len(tokens) == max_length
        expected = runtime.logprobs(tokens)[-len(after) :].sum()
        assert found.logprob == pytest.approx(expected, rel=1e-4, abs=1e-4)
    runtime.close()


def test_spaces_before_a_continuation_belong_to_it() -> None:
    before, after = encode_pair(ScriptedRuntime(), "Answer: ", "A")
    assert bytes(before[1:]) == b"Answer:"
    assert bytes(after) == b" A"
    with pytest.raises(PromptTooLong, match="the continuation has 9 tokens"):
        truncate_left((256,), tuple(range(9)), 9)


def test_is_greedy_is_whether_greedy_decoding_generates_it() -> None:
    found = loglikelihoods(Biased(favoured="s"), "say: ", ["s", "ss", "st"])
    assert [each.is_greedy for each in found] == [False, False, False]  # the space is no favourite
    assert [each.is_greedy for each in loglikelihoods(Biased(favoured="s"), "say:", ["s", "ss", "st"])] == [
        1,
        1,
        0,
    ]


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        ("so 1,200 pieces. The answer is 1,200.", "1200", True), ("72 and then 70", "72", False),
        ("It is -3.50", "-3.5", True), ("none", "4", False), ("12 / 4 = 3", "3", True),
    ],
)  # fmt: skip
def test_the_last_number_is_the_answer(completion: str, answer: str, right: bool) -> None:
    assert last_number_matches(completion, answer) is right


def test_generated_numbers_and_last_words_must_match_exactly() -> None:
    questions = [question(question=f"How many {n}?", choices=None, answer=str(n)) for n in (7, 9)]
    found = math_word_problems(ScriptedRuntime(replies={"How many 7?": "3 + 4 = 7"}, default="8"), questions)
    assert found.scores.tolist() == [1, 0]
    text = "The harbour is quiet. " * 20 + "Nobody works at the harbour tonight."
    before, word = split_last_word(text) or ("", "")
    assert (before[-7:], word) == ("the", "harbour") or before.endswith("at the")
    assert predict_last_words(ScriptedRuntime(default="harbour, again"), [text]).scores.tolist() == [1]
    assert predict_last_words(ScriptedRuntime(default="harbours"), [text]).scores.tolist() == [0]
    assert split_last_word("too short a passage for a passage") is None


def test_code_is_right_where_its_tests_pass() -> None:
    questions = [
        question(
            question="def twice(x):\n", choices=None, answer="", entry_point="twice",
            test="def check(f):\n    assert f(2) == 4\n",
        ),
        question(question="Write thrice(x).", choices=None, answer="", test_list=("assert thrice(2) == 6",)),
    ]  # fmt: skip
    replies = {"def twice": "    return 2 * x", "Write thrice": "def thrice(x):\n    return 4 * x"}
    assert code_generation(ScriptedRuntime(replies=replies), questions).scores.tolist() == [1, 0]
    assert unit_tests(questions[0]).endswith("check(twice)")
    assert "assert thrice(2) == 6" in code_prompt(questions[1])


@pytest.mark.parametrize(
    "program_",
    [
        "open('out.txt', 'w').write('x')",
        "import os; os.remove('program.py')",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import os\nif os.fork() == 0: pass",
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "while True: pass",
        "held = bytearray(2 << 30)",
        "raise SystemExit(0)",
        "import os; os._exit(0)",
        "print('passed', flush=True); raise ValueError",
        "not python",
        "assert 1 == 2",
        "import numpy",
    ],
)
def test_the_sandbox_stops_a_program(program_: str) -> None:
    assert not passes(program_, timeout=2)


def test_a_correct_program_passes() -> None:
    assert passes("import math, re, collections\nprint('noise')\nassert math.sqrt(4) == 2")


def write_lines(folder: Path, *lines: str) -> Path:
    (folder / "questions").mkdir(parents=True)
    (folder / "questions" / "some.jsonl").write_text("\n".join(lines))
    return folder


def test_samples_are_the_same_whatever_the_order(tmp_path: Path) -> None:
    lines = [json.dumps({**QUESTION, "question": f"Number {n}?", "domain": "law"}) for n in range(30)]
    lines += [json.dumps({**QUESTION, "question": "Other?", "domain": "math"}), lines[0]]
    lines.append(json.dumps({**QUESTION, "question": "Faulty?", "redux": "wrong_groundtruth"}))
    found = read_questions(write_lines(tmp_path / "a", *lines))
    assert len(found) == 31
    again = read_questions(write_lines(tmp_path / "b", *reversed(lines)))
    taken = sample_questions(found, "law", "multiple_choice", 10)
    assert len(taken) == 10
    assert (
        taken
        == sample_questions(again, "law", "multiple_choice", 10)
        == sample_questions(found, "law", "multiple_choice", 20)[:10]
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: Invalid JSON"),
        ('{"question": "a", "choices": null, "answer": "b"}', "line 2: domain: Field required"),
        (
            json.dumps({**QUESTION, "answer": 2}),
            "line 2: Value error, expected an answer from 0 to 1, found 2",
        ),
        (json.dumps({**QUESTION, "choices": ["one"]}), "expected 2 to 10 choices"),
        (json.dumps({**QUESTION, "question": " "}), "the question is empty"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        read_questions(write_lines(tmp_path, json.dumps(QUESTION), line))


def test_no_questions_and_no_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="holds no questions"):
        read_questions(tmp_path)
    write_lines(tmp_path)
    (tmp_path / "questions" / "some.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(BadConfig, match="not UTF-8 text: byte 0"):
        read_questions(tmp_path)
