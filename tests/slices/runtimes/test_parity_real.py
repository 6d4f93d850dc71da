"""The real Gemma 3 270M and slices of it: torch and llama.cpp give the same probabilities.

In a file of float32 matrices nothing is rounded, so it must agree closely. Of bfloat16 matrices llama.cpp
rounds their inputs too, which torch in float32 does not: there the yardstick beside the fixed one is how
far torch itself moves when it rounds them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slices import demo_model
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.export import export
from slices.runtimes.llama_runtime import LlamaRuntime
from slices.runtimes.torch_runtime import TorchRuntime
from tests.paths import PROSE

pytestmark = pytest.mark.slow
KINDS = {"whole": None, "swa": {"layers": "swa"}, "32k": {"layers": "all", "vocab": "32768"}}
Found = tuple[float, float, int]  # mean |difference|: of every token, of the text's own; wrong first choices


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOM_HOME", str(tmp_path_factory.mktemp("home")))
        yield demo_model.ensure(demo_model.NAME)


def torch_logprobs(folder: Path, tokens: list[int], rounded: bool) -> np.ndarray:
    """Log-probabilities in float32, shape (positions, vocabulary); `rounded` rounds what enters a matrix."""
    import torch

    model = TorchRuntime(folder, threads=2, precision="float32")._model

    def to_bfloat16(module: object, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0].bfloat16().float(),)

    for module in model.modules() if rounded else ():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(to_bfloat16)
    with torch.inference_mode():
        found: np.ndarray = model(torch.tensor([tokens])).logits[0].float().log_softmax(1).numpy()
    return found


def llama_logprobs(file: Path, tokens: list[int]) -> np.ndarray:
    runtime = LlamaRuntime(file, threads=2)
    found = np.concatenate([*runtime.distributions([*tokens, 0])])
    runtime.close()
    return found


def compare(expected: np.ndarray, found: np.ndarray, tokens: list[int]) -> Found:
    best = np.partition(expected, -2, axis=1)
    sure = best[:, -1] - best[:, -2] > 0.05
    assert sure.sum() > 600
    difference = np.abs(expected - found)
    own = difference[np.arange(len(tokens) - 1), tokens[1:]]
    wrong = (expected.argmax(axis=1) != found.argmax(axis=1))[sure].sum()
    return float(difference.mean()), float(own.mean()), int(wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_real_model(kind: str, parent: Path, tmp_path: Path) -> None:
    asked = KINDS[kind]
    folder = parent if asked is None else tmp_path / "slice"
    if asked is not None:
        cut(SliceRequest(domain="general", model=str(parent), corpus=(PROSE,), output=folder, **asked))  # type: ignore[arg-type]
    tokens = TorchRuntime(folder).encode(PROSE.read_text(encoding="utf-8") * 3)[:700]
    assert len(tokens) == 700  # the sliding window holds 512
    expected = torch_logprobs(folder, tokens, rounded=False)

    exact = compare(
        expected, llama_logprobs(export(folder, tmp_path / "f.gguf", precision="F32"), tokens), tokens
    )
    assert exact[0] <= 0.01 and exact[1] <= 0.01 and exact[2] == 0
    half = compare(expected, llama_logprobs(export(folder, tmp_path / "b.gguf"), tokens), tokens)
    noise = compare(expected, torch_logprobs(folder, tokens, rounded=True), tokens)
    print(f"{kind}: F32 {exact}, BF16 {half}, torch's own rounding {noise}")
    assert half[0] <= 1.5 * noise[0] and half[1] <= max(0.01, 1.5 * noise[1])
    assert half[2] <= 2 * noise[2]
