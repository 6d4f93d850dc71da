"""lm-evaluation-harness over our Runtime: own task files, offline, with results worked out by hand."""

import json
import math
from pathlib import Path

import pytest

from slices.errors import NotFound
from slices.runtimes.open import open_runtime
from slices.runtimes.scripted import ScriptedRuntime
from slices.tasks.lm_eval_harness import HarnessResult, generate_until, loglikelihood_rolling, run_harness
from slices.tasks.multiple_choice import LETTER, multiple_choice
from slices.tasks.questions import Question
from tests.slices.gguf_fixtures import FULL, SAMPLES, SLIDING, write_gemma3

TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: {kind}
doc_to_text: "{text}"
doc_to_target: {target}
{rest}
metric_list:
  - {{metric: {metric}}}
"""
CHOICES = 'doc_to_choice: ["A", "B"]'
STEM = "The following are multiple choice questions (with answers) about law.\\n\\n{{question}}\\n"
STEM += "A. {{choices[0]}}\\nB. {{choices[1]}}\\nAnswer:"


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hub")


def write_task(
    folder: Path, name: str, kind: str, text: str, target: str, metric: str, rest: str = ""
) -> None:
    fields = {"name": name, "kind": kind, "text": text, "target": target, "metric": metric, "rest": rest}
    (folder / f"{name}.yaml").write_text(TASK.format(data=folder / "items.jsonl", **fields))


def items(folder: Path, count: int = 8) -> list[Question]:
    words = next(iter(SAMPLES.values())).split()
    found = [
        {"question": f"{words[n]} or {words[n + 1]}?", "choices": words[n : n + 2], "answer": n % 2}
        for n in range(count)
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(each) + "\n" for each in found))
    return [Question.model_validate({**each, "domain": "law"}) for each in found]


def single(found: list[HarnessResult]) -> HarnessResult:
    (one,) = found
    return one


@pytest.mark.filterwarnings("ignore")
def test_its_multiple_choice_is_ours(tmp_path: Path) -> None:
    questions = items(tmp_path)
    write_task(tmp_path, "toy_mcq", "multiple_choice", STEM, "answer", "acc", CHOICES)
    runtime = open_runtime(write_gemma3(tmp_path / "m", [SLIDING, FULL]))
    found = single(run_harness(runtime, ["toy_mcq"], tmp_path))
    ours = multiple_choice(runtime, questions)[LETTER].mean
    runtime.close()
    assert (found.task, found.metric, found.n) == ("toy_mcq", "acc", 8)
    assert found.value == ours.value
    assert found.stderr == pytest.approx(ours.stderr)


@pytest.mark.filterwarnings("ignore")
def test_rolling_and_generation_results_by_hand(tmp_path: Path) -> None:
    items(tmp_path)
    write_task(tmp_path, "toy_roll", "loglikelihood_rolling", "", '"{{question}}"', "bits_per_byte")
    write_task(
        tmp_path, "toy_write", "generate_until", "{{question}}", "scripted", "exact_match",
        'generation_kwargs: {until: [" "]}',
    )  # fmt: skip
    found = {
        each.task: each for each in run_harness(ScriptedRuntime(), ["toy_roll", "toy_write"], tmp_path, 3)
    }
    assert found["toy_roll"].value == pytest.approx(8.0)
    assert (found["toy_roll"].n, found["toy_write"].n) == (3, 3)
    assert found["toy_write"].metric.startswith("exact_match")


@pytest.mark.parametrize("context", [5, 64])
def test_a_long_text_rolls_through_every_token_once(context: int) -> None:
    assert loglikelihood_rolling(ScriptedRuntime(), "x" * 23, context) == pytest.approx(-23 * math.log(256))


def test_long_prompts_are_truncated_on_the_left_and_completions_at_the_stop() -> None:
    runtime = ScriptedRuntime(default="one two three")
    assert generate_until(runtime, "a" * 500 + "end", {"until": " two", "max_gen_toks": 8}, 100) == "one"
    assert len(runtime.seen[0]) < 100
    assert runtime.seen[0].endswith("end")


@pytest.mark.filterwarnings("ignore")
def test_an_unknown_task_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="has no task 'no_such_task'"):
        run_harness(ScriptedRuntime(), ["no_such_task"], tmp_path)
