"""A slice and its GGUF must be the same model: torch and stock llama.cpp give the same probabilities."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slices import export as export_module
from slices.architecture.attention import Attention
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.dialects.gemma4 import GEMMA4
from slices.dialects.table import as_they_are
from slices.errors import Unsupported
from slices.export import export
from slices.gguf.header import read_gguf_header
from slices.gguf.tensors import Precision
from slices.runtimes.llama_runtime import LlamaRuntime
from slices.runtimes.torch_runtime import TorchRuntime
from tests.conftest import E4B_TYPES
from tests.picos import SHAPES, calm, write_gemma4, write_shape
from tests.slices.gguf_fixtures import FULL, SAMPLES, SLIDING, write_gemma3

TEXT = " ".join(SAMPLES.values())
PRECISIONS: tuple[Precision, ...] = ("F32", "BF16")
LINEAR = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
GEMMA3_KINDS: dict[str, tuple[Sequence[str], dict[str, Any]]] = {
    "whole": ([SLIDING] * 5 + [FULL, SLIDING], {}),
    "cut": ([FULL, SLIDING, FULL, FULL, SLIDING], {}),
    "all sliding": ([SLIDING] * 5, {}),
    "all full": ([FULL] * 3, {}),
    "one layer": ([SLIDING], {}),
    "other scale": ([SLIDING, FULL], {"query_pre_attn_scalar": 32}),
    "scaled positions": ([SLIDING, FULL], {"rope_parameters": LINEAR}),
    "capped": ([SLIDING, FULL], {"final_logit_softcapping": 3.0}),
}
E4B_KINDS: dict[str, tuple[dict[str, Any], int]] = {  # what is asked for -> identity layers expected
    "whole": ({"layers": "all"}, 0),
    "depth, nothing shared": ({"layers": "0-23"}, 0),
    "depth, shared": ({"layers": "0,22,23,24,29,41"}, 0),
    "SWA only, shared": ({"layers": "swa"}, 1),
    "SWA only, not shared": ({"layers": "0-4,6-10"}, 0),
    "SWA only, one donor": ({"layers": "22,24"}, 1),
    "sliding sharers, full own layer": ({"layers": "5,22,24"}, 1),
    "full only, shared": ({"layers": "full"}, 1),
    "one sliding layer": ({"layers": "3"}, 1),
    "one full layer": ({"layers": "5"}, 1),
    "identity layers of its own": ({"layers": "swa", "portable": True}, 0),
    "vocabulary": ({"layers": "all", "vocab": "450"}, 0),
    "FFN": ({"layers": "all", "ffn": "32", "ffn_rank": "random"}, 0),
    "all at once": ({"layers": "swa", "vocab": "450", "ffn": "32", "ffn_rank": "random"}, 1),
}


@pytest.fixture(scope="module")
def calm_e4b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parity") / "pico-e4b"
    return calm(write_gemma4(folder, E4B_TYPES, num_kv_shared_layers=18))


def both_logprobs(folder: Path, file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of every position by torch in float32 and by llama.cpp, (positions, vocabulary)."""
    import torch

    ours, theirs = TorchRuntime(folder, threads=1, precision="float32"), LlamaRuntime(file, threads=1)
    tokens = ours.encode(TEXT)[:240]
    assert len(tokens) > 10 * 16  # far beyond the sliding window
    with torch.inference_mode():
        logits = ours._model(input_ids=torch.tensor([tokens])).logits[0].float()
        expected: np.ndarray = logits.log_softmax(1).numpy()
    found = theirs._decode(tokens, 0, every=True).astype(np.float64)
    found -= found.max(axis=1, keepdims=True)
    found -= np.log(np.exp(found).sum(axis=1, keepdims=True))
    theirs.close()
    return expected, found


def assert_same_model(folder: Path, file: Path) -> None:
    """The same first choice wherever torch is sure by 0.05 nat, and 0.01 nat of difference on average."""
    expected, found = both_logprobs(folder, file)
    best = np.sort(expected, axis=1)
    sure = best[:, -1] - best[:, -2] > 0.05
    assert sure.sum() > 100
    assert (expected.argmax(axis=1) == found.argmax(axis=1))[sure].all()
    assert np.abs(expected - found).mean() <= 0.01


@pytest.mark.parametrize("kind", GEMMA3_KINDS)
def test_gemma3(kind: str, tmp_path: Path) -> None:
    types, changes = GEMMA3_KINDS[kind]
    folder = write_gemma3(tmp_path / "slice", types, **changes)
    for precision in PRECISIONS:
        assert_same_model(folder, export(folder, tmp_path / f"{precision}.gguf", precision=precision))


def test_a_windowed_gemma3(tmp_path: Path) -> None:
    parent = calm(write_shape(tmp_path / "parent", "gemma3"))
    request = SliceRequest(
        domain="law",
        layers="all",
        model=str(parent),
        output=tmp_path / "slice",
        attention=Attention.SLIDING,
    )
    cut(request)
    file = export(tmp_path / "slice", tmp_path / "slice.gguf")
    assert_same_model(tmp_path / "slice", file)
    whole = both_logprobs(parent, file)
    assert np.abs(whole[0] - whole[1]).max() > 1e-3  # and another than its parent


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_the_families(shape: str, tmp_path: Path) -> None:
    folder = write_shape(tmp_path / "parent", shape)
    folder = folder if shape == "gemma3" else calm(folder)
    for precision in PRECISIONS:
        assert_same_model(folder, export(folder, tmp_path / f"{precision}.gguf", precision=precision))


@pytest.mark.parametrize("kind", E4B_KINDS)
def test_every_kind_of_slice(kind: str, calm_e4b: Path, tmp_path: Path) -> None:
    asked, identity_layers = E4B_KINDS[kind]
    text = tmp_path / "text.txt"
    text.write_text(TEXT * 3, encoding="utf-8")
    folder = tmp_path / "slice"
    cut(SliceRequest(domain="biochem", model=str(calm_e4b), corpus=(text,), output=folder, **asked))
    for precision in PRECISIONS:
        file = export(folder, tmp_path / f"{precision}.gguf", precision=precision)
        assert_same_model(folder, file)
    header = read_gguf_header(file)
    assert len(header.metadata.get("mom.identity_layers", [])) == identity_layers
    full = not all(header.metadata["gemma4.attention.sliding_window_pattern"])
    assert full == any(tensor.name == "rope_freqs.weight" for tensor in header.tensors)


def test_parity_notices_a_missing_identity_layer(
    calm_e4b: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The naive SWA-only export, in which llama.cpp takes the K/V of layer K - 2 for that of K - 1."""
    cut(SliceRequest(domain="biochem", layers="swa", model=str(calm_e4b), output=tmp_path / "slice"))
    monkeypatch.setattr(export_module, "DIALECTS", {"gemma4": replace(GEMMA4, arrange=as_they_are)})
    file = export(tmp_path / "slice", tmp_path / "naive.gguf", precision="F32")
    with pytest.raises(AssertionError):
        assert_same_model(tmp_path / "slice", file)


def test_parity_notices_a_wrong_attention_type(tmp_path: Path) -> None:
    """Without the list of types llama.cpp takes every sixth layer for full: the test must be able to tell."""
    folder = write_gemma3(tmp_path / "slice", [FULL, SLIDING, SLIDING])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layer_types": [SLIDING, SLIDING, FULL]}))
    file = export(folder, tmp_path / "wrong.gguf")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(AssertionError):
        assert_same_model(folder, file)


def test_identity_layers_are_small(calm_e4b: Path, tmp_path: Path) -> None:
    """One head and 32 neurons, nothing like a layer; it is named as an identity layer and holds zeros."""
    cut(SliceRequest(domain="biochem", layers="swa", model=str(calm_e4b), output=tmp_path / "slice"))
    header = read_gguf_header(export(tmp_path / "slice", tmp_path / "slice.gguf"))
    (identity_layer,) = header.metadata["mom.identity_layers"]
    assert identity_layer == 20  # right after the 20 sliding layers that have K/V of their own
    assert header.metadata["gemma4.attention.head_count"][identity_layer] == 1
    assert header.metadata["gemma4.feed_forward_length"][identity_layer] == 32
    weights = sum(t.weights for t in header.tensors if t.name.startswith(f"blk.{identity_layer}."))
    others = sum(t.weights for t in header.tensors if t.name.startswith("blk.0."))
    assert weights < others
    raw = (tmp_path / "slice.gguf").read_bytes()
    for tensor in header.tensors:
        if tensor.name.startswith(f"blk.{identity_layer}.") and len(tensor.shape) > 1:
            assert not any(raw[tensor.start : tensor.start + tensor.nbytes])


def test_donors_that_no_identity_layer_mends_are_refused(tmp_path: Path) -> None:
    """The full donor before the sliding one: stock llama.cpp would mix them up, so nothing is written."""
    types = [SLIDING, FULL, SLIDING, SLIDING, FULL]
    folder = write_gemma4(tmp_path / "parent", types, num_kv_shared_layers=2)
    with pytest.raises(Unsupported, match="shared sliding_attention layers read the K/V of layer 2"):
        export(folder, tmp_path / "slice.gguf")
    assert not list(tmp_path.glob("*.gguf"))
