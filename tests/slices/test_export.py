"""What an export writes, refuses and leaves behind. That it is the same model is in test_parity."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slices import manifest
from slices.errors import BadCheckpoint, Exists, SliceError, Unsupported
from slices.export import export
from slices.gguf.header import read_gguf_header
from slices.gguf.tokenizer import sentencepiece_scores
from slices.runtimes.llama_runtime import LlamaRuntime
from slices.runtimes.torch_runtime import TorchRuntime
from slices.tokenizer.files import read_bpe
from tests.slices.gguf_fixtures import (
    FULL,
    SAMPLES,
    SLIDING,
    tokenizer_json,
    visible_and_hidden,
    write_gemma3,
    write_manifest,
)

TEXT = " ".join(SAMPLES.values())


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
        assert ours._tokenize(text, control=True) == theirs.model.tokenize(text, control=True), text
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


def test_the_time_of_a_cut_does_not_change_the_file(tmp_path: Path) -> None:
    """The same slice is the same file, on a fast and on a slow machine."""
    folder, files = write_gemma3(tmp_path / "pico", [SLIDING]), []
    write_manifest(folder, "pico")
    made = manifest.read(folder)
    for seconds in (0.1, 12345.25):
        recipe = {"layers": "all", "seconds": seconds}
        manifest.write(folder, made.model_copy(update={"recipe": recipe}))
        files.append(export(folder, tmp_path / f"{seconds}.gguf").read_bytes())
    assert files[0] == files[1]
    assert json.loads(read_gguf_header(tmp_path / "0.1.gguf").metadata["mom.recipe"]) == {"layers": "all"}


def test_wider_weights_are_rounded(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = write_gemma3(tmp_path / "bf16", [SLIDING])
    wide = write_gemma3(tmp_path / "f32", [SLIDING])
    AutoModelForCausalLM.from_pretrained(folder, dtype="float32").save_pretrained(wide)
    one, other = (export(f, tmp_path / f"{f.name}.gguf", name="x") for f in (folder, wide))
    digests = [read_gguf_header(file).metadata["mom.weights_sha256"].encode() for file in (one, other)]
    assert digests[0] != digests[1]
    assert one.read_bytes() == other.read_bytes().replace(digests[1], digests[0])


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
    modules = "slices.export, slices.quant.quantize, slices.report.evaluate, slices.runtimes.open"
    code = f"import sys, {modules}; assert not {heavy} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
