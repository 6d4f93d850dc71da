"""A slice and its GGUF must be the same model: the same tokens for a text, the same logits for tokens."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slices.cut import cut
from slices.errors import BadCheckpoint, Exists, SliceError, Unsupported
from slices.export import export
from slices.gguf_header import read_gguf_header
from slices.gguf_tokenizer import sentencepiece_scores
from slices.llama_runtime import LlamaRuntime
from slices.quantize import quantize
from slices.request import Request
from slices.tokenizer import read_bpe
from slices.torch_runtime import TorchRuntime
from tests.slices.gguf_fixtures import (
    FULL,
    SAMPLES,
    SLIDING,
    tokenizer_json,
    visible_and_hidden,
    write_gemma3,
)

TEXT = " ".join(SAMPLES.values())
LINEAR = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
CUTS: dict[str, tuple[Sequence[str], dict[str, Any]]] = {
    "whole": ([SLIDING] * 5 + [FULL, SLIDING], {}),
    "cut": ([FULL, SLIDING, FULL, FULL, SLIDING], {}),
    "all sliding": ([SLIDING] * 5, {}),
    "all full": ([FULL] * 3, {}),
    "one layer": ([SLIDING], {}),
    "other scale": ([SLIDING, FULL], {"query_pre_attn_scalar": 32}),
    "scaled positions": ([SLIDING, FULL], {"rope_parameters": LINEAR}),
    "capped": ([SLIDING, FULL], {"final_logit_softcapping": 3.0}),
}


def both_logits(folder: Path, file: Path) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Logits of every position by torch and by llama.cpp, shape (positions, vocabulary)."""
    import torch

    ours, theirs = TorchRuntime(folder, threads=1), LlamaRuntime(file, threads=1)
    tokens = ours.encode(TEXT)
    assert len(tokens) > 5 * 16  # far beyond the sliding window
    with torch.inference_mode():
        expected = ours._model(input_ids=torch.tensor([tokens])).logits[0].float().numpy()
    found = theirs._decode(tokens, 0, every=True).copy()
    theirs.close()
    return expected, found, tokens


@pytest.mark.parametrize("cut", CUTS)
def test_gguf_is_the_same_model(cut: str, tmp_path: Path) -> None:
    types, changes = CUTS[cut]
    folder = write_gemma3(tmp_path / "slice", types, **changes)
    expected, found, _ = both_logits(folder, export(folder, tmp_path / "slice.gguf"))
    assert np.abs(expected - found).mean() < 0.02 * expected.std()
    best = np.sort(expected, axis=1)
    clear = best[:, -1] - best[:, -2] > 0.1 * expected.std()
    assert clear.sum() > 50
    assert (expected.argmax(1) == found.argmax(1))[clear].all()


def test_parity_notices_a_wrong_attention_type(tmp_path: Path) -> None:
    """Without the list of types llama.cpp takes every sixth layer for full: the test must be able to tell."""
    folder = write_gemma3(tmp_path / "slice", [FULL, SLIDING, SLIDING])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layer_types": [SLIDING, SLIDING, FULL]}))
    file = export(folder, tmp_path / "wrong.gguf")
    (folder / "config.json").write_text(json.dumps(config))
    expected, found, _ = both_logits(folder, file)
    assert np.abs(expected - found).mean() > 0.1 * expected.std()


@pytest.mark.parametrize("every", [1, 2, 5], ids=["sentencepiece", "other merges", "few merges"])
def test_tokens_are_the_same(every: int, tmp_path: Path) -> None:
    folder = write_gemma3(tmp_path / "slice", [SLIDING])
    document = tokenizer_json(tokenizer_json()["model"]["merges"][::every])
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    assert (sentencepiece_scores(read_bpe(folder)) is not None) == (every == 1)
    ours = TorchRuntime(folder, threads=1)
    theirs = LlamaRuntime(export(folder, tmp_path / "slice.gguf"), threads=1)
    for text in [*SAMPLES.values(), TEXT, "", " ", "\n", "é", "aaaa" * 9]:
        assert ours.encode(text) == theirs.encode(text), text
        assert ours._tokenize(text, control=True) == theirs._tokenize(text, control=True), text
    theirs.close()


def test_shards_give_the_same_file(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = write_gemma3(tmp_path / "one", [SLIDING, FULL])
    sharded = write_gemma3(tmp_path / "many", [SLIDING, FULL])
    (sharded / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(folder, dtype="bfloat16").save_pretrained(
        sharded, max_shard_size="1MB"
    )
    assert len(list(sharded.glob("*.safetensors"))) > 1
    one, many = (export(f, tmp_path / f"{f.name}.gguf", name="x") for f in (folder, sharded))
    assert one.read_bytes() == many.read_bytes()


def test_wider_weights_are_rounded(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = write_gemma3(tmp_path / "bf16", [SLIDING])
    wide = write_gemma3(tmp_path / "f32", [SLIDING])
    AutoModelForCausalLM.from_pretrained(folder, dtype="float32").save_pretrained(wide)
    one, other = (export(f, tmp_path / f"{f.name}.gguf", name="x") for f in (folder, wide))
    assert one.read_bytes() == other.read_bytes()


def test_token_beyond_the_embedding_is_left_out(tmp_path: Path) -> None:
    """Gemma's tokenizers name an image token that text-only embeddings have no row for."""
    folder = write_gemma3(tmp_path / "slice", [SLIDING], rows_more=0)
    document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    document["added_tokens"].append(document["added_tokens"][0] | {"id": 9999, "content": "<image>"})
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    header = read_gguf_header(export(folder, tmp_path / "slice.gguf"))
    assert len(header.metadata["tokenizer.ggml.tokens"]) == len(document["model"]["vocab"])


def _set_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _set_tokenizer(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = tokenizer_json()
    change(document)
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")


REFUSED: dict[str, tuple[Callable[[Path], object], type[SliceError], str]] = {
    "bias": (lambda f: _set_config(f, attention_bias=True), Unsupported, "attention_bias is True"),
    "untied": (lambda f: _set_config(f, tie_word_embeddings=False), Unsupported, "tie_word_embeddings"),
    "scaled": (
        lambda f: _set_config(
            f, rope_parameters={SLIDING: {"rope_type": "linear", "rope_theta": 1, "factor": 2}}
        ),
        Unsupported,
        r"layers \[0\]",
    ),
    "no bos": (lambda f: _set_config(f, bos_token_id=None), BadCheckpoint, "bos_token_id"),
    "eos outside": (lambda f: _set_config(f, eos_token_id=10**6), BadCheckpoint, "outside"),
    "normalizer": (
        lambda f: _set_tokenizer(f, lambda d: d.update(normalizer={"type": "NFKC"})),
        Unsupported,
        "serve this slice in torch",
    ),
    "no byte": (
        lambda f: _set_tokenizer(f, lambda d: d["model"]["vocab"].pop("<0x41>")),
        Unsupported,
        "<0x41>",
    ),
    "id outside": (
        lambda f: _set_tokenizer(f, lambda d: d["model"]["vocab"].update(zzzzzz=99999)),
        BadCheckpoint,
        "99999",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_why_and_leave_nothing(case: str, tmp_path: Path) -> None:
    spoil, kind, message = REFUSED[case]
    spoil(write_gemma3(tmp_path / "slice", [SLIDING]))
    with pytest.raises(kind, match=message):
        export(tmp_path / "slice", tmp_path / "slice.gguf")
    assert visible_and_hidden(tmp_path) == {"slice"}


def test_gemma4_is_refused_for_now(tmp_path: Path) -> None:
    config = {
        "model_type": "gemma4_text",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
    }
    config |= {"num_attention_heads": 2, "num_key_value_heads": 1, "num_kv_shared_layers": 0}
    (tmp_path / "config.json").write_text(json.dumps(config | {"layer_types": [FULL], "head_dim": 32}))
    with pytest.raises(Unsupported, match="gemma4_text to GGUF is not built yet"):
        export(tmp_path, tmp_path / "slice.gguf")


def test_existing_file_is_kept(tmp_path: Path) -> None:
    folder = write_gemma3(tmp_path / "slice", [SLIDING])
    file = export(folder, tmp_path / "slice.gguf")
    with pytest.raises(Exists):
        export(folder, file)
    export(folder, file, force=True)


def test_header_reader_survives_damage(tmp_path: Path) -> None:
    """Any byte may be wrong, any tail missing: the answer is a sentence, never another exception."""
    whole = export(write_gemma3(tmp_path / "slice", [SLIDING]), tmp_path / "whole.gguf").read_bytes()
    damaged, random = tmp_path / "damaged.gguf", np.random.default_rng(1)
    end = min(tensor.start for tensor in read_gguf_header(tmp_path / "whole.gguf").tensors)
    for _ in range(300):
        raw = bytearray(whole)
        raw[int(random.integers(end))] = int(random.integers(256))
        damaged.write_bytes(raw)
        try:
            read_gguf_header(damaged)
        except BadCheckpoint as error:
            assert str(damaged) in str(error)
    for size in [0, 3, 23, 24, 100, end - 1, end + 1, len(whole) - 40]:
        damaged.write_bytes(whole[:size])
        with pytest.raises(BadCheckpoint, match=r"damaged\.gguf"):
            read_gguf_header(damaged)
    damaged.write_bytes(whole[:4] + struct.pack("<IQQ", 3, 2**40, 2**40) + whole[24:])
    with pytest.raises(BadCheckpoint):
        read_gguf_header(damaged)


def test_import_is_light() -> None:
    heavy = "{'torch', 'transformers', 'llama_cpp', 'gguf'}"
    modules = "slices.export, slices.quantize, slices.evaluate, slices.open"
    code = f"import sys, {modules}; assert not {heavy} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("layers", "hazard"),
    [
        ("swa", "with sharing, llama.cpp reads another layer's K/V without a word"),
        ("drop:24-41", "right, but only without rope_freqs where no full layer is left"),
        ("0-4,6-10", "all sliding without sharing"),
        ("full", "all full: llama.cpp ends its process"),
        ("22,24", "fewer than two layers with K/V of their own: llama.cpp ends its process"),
        ("all", "the one layout that stock llama.cpp reads as it should"),
    ],
)
def test_no_gemma4_file_that_llama_cpp_would_misread(
    pico_e4b: Path, tmp_path: Path, layers: str, hazard: str
) -> None:
    """Until the export knows what stock llama.cpp does with each layout, none leaves the house."""
    cut(Request("biochem", layers, str(pico_e4b), output=tmp_path / "out"))
    with pytest.raises(Unsupported, match="to GGUF is not built yet"):
        quantize(tmp_path / "out", "BF16")
    assert not list((tmp_path / "out").glob("*.gguf*")), hazard
    assert not list((tmp_path / "out").glob(".*")), hazard
