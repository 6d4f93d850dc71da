"""Models for reports whose bits per byte are known by hand."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.report.as_json import as_json
from slices.report.evaluate import EvalReport
from slices.report.evaluated_model import EvaluatedModel
from slices.report.parent_quants import ParentQuants
from slices.runtimes.scripted import ScriptedRuntime

DOCUMENTS = ["The quick brown fox", "jumps over", "the lazy dog."]


@dataclass
class Biased(ScriptedRuntime):
    """Spends `bits` on each byte, and one more on each "x"."""

    bits: float = 2.0

    def distributions(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        for token in tokens[1:]:
            row = np.full((1, 257), -self.bits * math.log(2), np.float32)
            row[0, ord("x")] -= math.log(2)
            yield row
            del token


def fake(folder: Path, name: str = "fake") -> EvaluatedModel:
    """A model of its own file, which no runtime here reads."""
    (folder / f"{name}.gguf").write_text(name)
    return EvaluatedModel(name, folder, f"{name}.gguf")


def report_json(report: EvalReport) -> dict[str, Any]:
    """A report's JSON, serialized and parsed."""
    found = as_json(report, ParentQuants({}, {}, {}), {}, {}, {}, "1.0")
    parsed: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))
    return parsed
