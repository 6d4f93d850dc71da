"""A toy Gemma 4 of the real transformers class, trained a little on domain text: the danger zone in small.

FFN ratio 4.0, five sliding layers to a full one, K/V shared by the second half, per-layer embeddings, and
every width a multiple of 256, so that llama.cpp gives each matrix the type that was asked for. It has seen
too little to write well; it has seen enough for its weights to be no noise. Kept in `$MOM_HOME/models`
under the hash of everything that decides its weights. Quantizes and measures nothing.
"""

import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slices.files.atomic import staged
from slices.home import models_home

SLIDING, FULL = "sliding_attention", "full_attention"
CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>"]
BYTES = [f"<0x{value:02X}>" for value in range(256)]
RECORD = "training.json"
StepCallback = Callable[[int, int, float], None]  # step, total steps, loss in nats per token


@dataclass(frozen=True)
class Toy:
    """What decides the weights, beside the text."""

    rows: int = 2048
    hidden: int = 256
    layers: int = 12
    text_bytes: int = 3_000_000
    context: int = 640  # tokens: as long as the windows that measure
    batch: int = 1
    steps: int = 600
    rate: float = 1.5e-3
    warmup: int = 40
    seed: int = 0


def ensure_toy(documents: Sequence[str], toy: Toy, on_step: StepCallback) -> Path:
    """The folder of the toy trained on `documents`, which is made if it is not there (minutes)."""
    text = _some(documents, toy)
    digest = hashlib.sha256(json.dumps(asdict(toy), sort_keys=True).encode())
    for document in text:
        digest.update(hashlib.sha256(document.encode()).digest())
    folder = models_home() / f"toy-gemma4-{digest.hexdigest()[:16]}"
    if not (folder / RECORD).is_file():
        with staged(folder, force=True) as partial:
            partial.mkdir(parents=True)
            _make(partial, text, toy, on_step)
    return folder


def _some(documents: Sequence[str], toy: Toy) -> list[str]:
    """Documents in an order that the seed says, up to the bytes that are wanted."""
    shuffled = sorted(documents)
    random.Random(toy.seed).shuffle(shuffled)
    chosen, filled = [], 0
    for document in shuffled:
        if filled >= toy.text_bytes:
            break
        chosen.append(document)
        filled += len(document.encode())
    return chosen


def _make(folder: Path, text: Sequence[str], toy: Toy, on_step: StepCallback) -> None:
    from tokenizers import Tokenizer

    document = tokenizer_json(text, toy.rows)
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"add_bos_token": true}')
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    ids = [tokenizer.encode(each, add_special_tokens=False).ids for each in text]
    model, record = _trained(ids, len(document["model"]["vocab"]), toy, on_step)
    model.save_pretrained(folder)
    made = asdict(toy) | record | {"parameters": sum(each.numel() for each in model.parameters())}
    (folder / RECORD).write_text(json.dumps(made, indent=1) + "\n")


def tokenizer_json(text: Sequence[str], rows: int) -> dict[str, Any]:
    """A tokenizer.json of Gemma's make, byte fallback included, trained on `text`."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    lines = pre_tokenizers.Split("\n", "isolated")  # llama.cpp reads a line at a time
    words = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([lines, words])
    alphabet = [chr(code) for code in range(33, 127)] + ["▁", "\n"]
    trainer = trainers.BpeTrainer(
        vocab_size=rows - len(CONTROL) - len(BYTES) + 1, show_progress=False, special_tokens=["<unk>"],
        initial_alphabet=alphabet, limit_alphabet=len(alphabet) + 60,
    )  # fmt: skip
    tokenizer.train_from_iterator(text, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = [*CONTROL, *BYTES, *(token for token in model["vocab"] if token != "<unk>")]
    vocab = {token: index for index, token in enumerate(tokens)}
    added = [
        {"id": vocab[token], "content": token, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for token in CONTROL
    ]  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
        },
        "post_processor": None, "decoder": None,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": vocab, "merges": [list(merge) for merge in model["merges"]],
        },
    }  # fmt: skip


def settings(toy: Toy, rows: int) -> dict[str, Any]:
    """The config: the proportions of E4B, the second half of the layers sharing the first half's K/V."""
    return {
        "vocab_size": rows, "vocab_size_per_layer_input": rows, "hidden_size": toy.hidden,
        "intermediate_size": 4 * toy.hidden, "num_hidden_layers": toy.layers, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 64, "global_head_dim": 128, "hidden_size_per_layer_input": 64,
        "num_kv_shared_layers": toy.layers // 2, "use_double_wide_mlp": False, "sliding_window": 64,
        "max_position_embeddings": 2048, "layer_types": [*[SLIDING] * 5, FULL] * (toy.layers // 6),
        "final_logit_softcapping": 30.0, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
    }  # fmt: skip


def _trained(
    ids: Sequence[list[int]], rows: int, toy: Toy, on_step: StepCallback
) -> tuple[Any, dict[str, Any]]:
    """The model in bf16, and how its training went. AdamW, a warm-up, then a cosine down to nothing."""
    import torch
    from transformers import Gemma4ForCausalLM, Gemma4TextConfig

    torch.manual_seed(toy.seed)
    model = Gemma4ForCausalLM(Gemma4TextConfig(**settings(toy, rows))).float().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=toy.rate, betas=(0.9, 0.95), weight_decay=0.01)
    losses, started = [], time.monotonic()
    for step, batch in zip(range(toy.steps), batches(ids, toy), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = toy.rate * schedule(step, toy)
        tokens = torch.tensor(batch)
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        on_step(step + 1, toy.steps, losses[-1])
    record = {
        "tokens": len(losses) * toy.batch * toy.context,
        "loss_first": round(losses[0], 3),
        "loss_last_20": round(sum(losses[-20:]) / len(losses[-20:]), 3),
        "seconds": round(time.monotonic() - started, 1),
    }
    return model.to(torch.bfloat16).eval(), record


def schedule(step: int, toy: Toy) -> float:
    """The share of the full rate at a step, 0 to 1."""
    if step < toy.warmup:
        return (step + 1) / toy.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - toy.warmup) / max(1, toy.steps - toy.warmup)))


def batches(ids: Sequence[list[int]], toy: Toy) -> Iterator[list[list[int]]]:
    """Without end: `batch` stretches of `context` tokens, each after a bos, places drawn by the seed."""
    stream = [token for document in ids for token in (2, *document)]
    draw = random.Random(toy.seed)
    while True:
        starts = [draw.randrange(len(stream) - toy.context) for _ in range(toy.batch)]
        yield [[2, *stream[start : start + toy.context - 1]] for start in starts]
