"""Hold our MMLU answers against lm-evaluation-harness's own HF backend, question by question.

    python -m benchmarks.runtime.mmlu MODEL --data DIR --questions 300

The harness reads the same questions from a local file, with the prompts of its own MMLU, and runs the
checkpoint in transformers in float32; we run it through `Runtime`. Both count the likeliest letter.
"""

import argparse
import json
import os
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.paths import RESULTS
from slices.model_ref import locate
from slices.runtimes.open import open_runtime
from slices.tasks.multiple_choice import predict_letter
from slices.tasks.questions import Question, read_questions

OUT = RESULTS / "mmlu.json"
STEM = "The following are multiple choice questions (with answers) about {{subject.replace('_', ' ')}}."
LETTERS = "".join(f"\n{letter}. {{{{choices[{index}]}}}}" for index, letter in enumerate("ABCD"))
ASKED = f"{{{{question.strip()}}}}{LETTERS}\nAnswer:"


def task(file: Path) -> dict[str, Any]:
    """MMLU's task definition, over a local file."""
    return {
        "task": "mom_mmlu",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": f"{STEM}\n\n{ASKED}",
        "doc_to_choice": ["A", "B", "C", "D"],
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def sample(data: Path, count: int) -> list[Question]:
    """MMLU questions of four choices, those of the lowest digests."""
    found = [
        each
        for each in read_questions(data)
        if each.source == "mmlu" and each.choices is not None and len(each.choices) == 4
    ]
    return sorted(found, key=lambda each: each.digest)[:count]


def by_harness(folder: Path, asked: list[Question], scratch: Path) -> list[int]:
    """The letters that the harness's own HF backend finds likeliest."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    file = scratch / "questions.jsonl"
    keys = {"question", "choices", "answer", "subject"}
    file.write_text("".join(each.model_dump_json(include=keys) + "\n" for each in asked), encoding="utf-8")
    (scratch / "mom_mmlu.yaml").write_text(json.dumps(task(file)), encoding="utf-8")  # YAML holds JSON
    model = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1, add_bos_token=True)
    found: Any = simple_evaluate(
        model=model, tasks=["mom_mmlu"], task_manager=TaskManager(include_path=str(scratch)), log_samples=True
    )
    letters = [0] * len(asked)
    for each in found["samples"]["mom_mmlu"]:
        likely = [
            answer[0][0] if isinstance(answer[0], list | tuple) else answer[0] for answer in each["resps"]
        ]
        letters[each["doc_id"]] = max(range(4), key=lambda index: float(likely[index]))
    return letters


def main() -> None:
    """Answer twice; write both scores and on how many questions they agree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("-o", "--output", type=Path, default=OUT)
    args = parser.parse_args()
    folder, asked = locate(args.model), sample(args.data, args.questions)
    runtime = open_runtime(folder, threads=args.threads)
    ours = [predict_letter(runtime, each) for each in asked]
    runtime.close()
    with tempfile.TemporaryDirectory() as scratch:
        theirs = by_harness(folder, asked, Path(scratch))
    differing = [number for number, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "model": args.model,
        "questions": len(asked),
        "ours": sum(letter == each.answer for letter, each in zip(ours, asked, strict=True)) / len(asked),
        "harness": sum(letter == each.answer for letter, each in zip(theirs, asked, strict=True))
        / len(asked),
        "agree": len(asked) - len(differing),
        "differing": [asked[number].digest[:12] for number in differing],
        "versions": {name: version(name) for name in ("mom-slicer", "lm-eval", "torch", "transformers")},
    }
    args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
