"""Train a small model of Gemma 4 E4B's exact structure on all domains' calibration text, mixed.

    python -m benchmarks.models.train_reference --data DIR -o reference

Sizes by flag; the defaults take about 40 minutes on two cores, and about 15 on a data-centre GPU (a larger
model, 41 million tokens), which is taken where there is one. The same command goes on where a killed run
was. The result is an ordinary checkpoint: `mom inspect reference`, `mom slice --model reference`.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.models.pretrain import train
from benchmarks.models.reference_e4b import ON_A_GPU, Sizes
from benchmarks.models.toy_gemma4 import tokenizer_json
from slices.device import Device, choose_device
from slices.errors import NotFound, SliceError
from slices.files import atomic
from slices.home import models_home
from slices.text.corpus import read_documents

TOKENIZER_BYTES, HELDOUT_ROWS = 3_000_000, 24


def documents(data: Path, name: str, nbytes: int) -> list[str]:
    """Documents of every domain in turn, in the order of their hashes, up to `nbytes` bytes in all."""
    files = sorted(data.glob(f"corpora/*/{name}.jsonl"))
    if not files:
        raise NotFound(f"{data} holds no corpora/<domain>/{name}.jsonl")
    share, found = nbytes // len(files), list[str]()
    for file in files:
        filled = 0
        for text in sorted(read_documents(file), key=lambda text: hashlib.sha256(text.encode()).digest()):
            if filled >= share:
                break
            found.append(text)
            filled += len(text.encode())
    return sorted(found, key=lambda text: hashlib.sha256(text.encode()).digest())


def encoded(tokenizer: Any, texts: Sequence[str]) -> NDArray[np.int32]:
    """One stream of tokens, a bos before each document."""
    ids = [[2, *found.ids] for found in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    return np.concatenate([np.array(each, dtype=np.int32) for each in ids])


def chosen_sizes(args: argparse.Namespace, device: Device) -> Sizes:
    """The defaults for the device, and what the flags change."""
    base = Sizes() if device.name == "cpu" else ON_A_GPU
    given = {field.name: getattr(args, field.name) for field in fields(Sizes)}
    return replace(base, **{name: value for name, value in given.items() if value is not None})


def tell(step: int, loss: float, speed: float, measured: float | None) -> None:
    """Every 20 steps, and at every measurement."""
    if measured is not None:
        print(f"step {step}: held-out {measured:.3f} nats a token, {speed:.0f} tokens/s", file=sys.stderr)
    elif step % 20 == 0:
        print(f"step {step}: {loss:.3f}, {speed:.0f} tokens/s", file=sys.stderr)


def make(args: argparse.Namespace, out: Path) -> None:
    """Tokenizer, text, training, checkpoint."""
    from tokenizers import Tokenizer

    device = choose_device(args.device, "auto", args.threads)
    sizes = chosen_sizes(args, device)
    text = documents(args.data, "calibration", 5 * sizes.tokens)
    document = tokenizer_json(documents(args.data, "calibration", TOKENIZER_BYTES), sizes.rows)
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.encode_special_tokens = True
    sizes = replace(sizes, rows=len(document["model"]["vocab"]))
    stream = encoded(tokenizer, text)
    kept = encoded(tokenizer, documents(args.data, "heldout", 8 * HELDOUT_ROWS * sizes.context))
    heldout = kept[: len(kept) // sizes.context * sizes.context].reshape(-1, sizes.context)[:HELDOUT_ROWS]
    state = out.with_name(f".{out.name}.training")
    model, curve = train(stream, heldout, sizes, device, state, args.every, tell)
    with atomic.staged(out, args.force) as folder:
        folder.mkdir(parents=True)
        import torch

        model.to(torch.bfloat16).cpu().save_pretrained(folder)
        (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text('{"add_bos_token": true}')
        made = {"sizes": asdict(sizes), "tokens": sizes.tokens, "curve": curve, "device": device.name}
        (folder / "training.json").write_text(json.dumps(made, indent=1) + "\n")
    for file in state.iterdir():
        file.unlink()
    state.rmdir()


def main() -> None:
    """Train, or go on."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "-o", "--out", type=Path, default=None, help="default: models/reference-e4b of mom's home"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--every", type=int, default=200, help="steps between two measurements")
    parser.add_argument("--force", action="store_true")
    for field in fields(Sizes):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=None)
    args = parser.parse_args()
    out = args.out or models_home() / "reference-e4b"
    try:
        atomic.refuse_existing(out, args.force)
        make(args, out)
    except SliceError as error:
        sys.exit(f"error: {error}")
    print(out)


if __name__ == "__main__":
    main()
