"""Tiny parent models, slices of them, and text, for the tests of healing."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.text.corpus import Corpus
from tests.picos import write_gemma3, write_gemma4

PROSE = "the enzyme binds a substrate in water while salt and sugar dissolve slowly near cold membranes"
TYPES = ["sliding_attention", "sliding_attention", "full_attention"] * 2


def sentences(count: int = 80, words: int = 60, seed: int = 1) -> Corpus:
    """Documents of random words: text enough for a pico, a tenth of it held out."""
    draw, known = random.Random(seed), PROSE.split(" ")
    return Corpus("files", tuple(" ".join(draw.choices(known, k=words)) for _ in range(count)))


def write_data(folder: Path, domains: Sequence[str], count: int = 60) -> Path:
    """A folder with calibration and held-out text of `sentences` for each domain; returns it."""
    for seed, domain in enumerate(domains):
        (folder / "corpora" / domain).mkdir(parents=True)
        for name in ("calibration", "heldout"):
            texts = sentences(count, seed=seed + 10 * (name == "heldout")).documents
            lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
            (folder / "corpora" / domain / f"{name}.jsonl").write_text(lines)
    return folder


def slice_of(parent: Path, target: Path, layers: str = "drop:0", vocab: str = "all") -> Path:
    """A slice of a pico, cut by the text of `sentences` where its vocabulary is cut."""
    corpus: tuple[Path, ...] = ()
    if vocab != "all":
        file = target.parent / "corpus.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n\n".join(sentences().documents), encoding="utf-8")
        corpus = (file,)
    cut(
        SliceRequest(
            domain="biochem", layers=layers, model=str(parent), vocab=vocab, corpus=corpus, output=target
        )
    )
    return target


def parent_gemma4(folder: Path) -> Path:
    """A Gemma 4 of six layers, the last three of which share K/V, with per-layer embeddings."""
    return write_gemma4(folder, TYPES, num_kv_shared_layers=3, max_position_embeddings=2048)


def parent_gemma3(folder: Path) -> Path:
    """A Gemma 3 of six layers."""
    return write_gemma3(folder, TYPES, hidden_size=32, intermediate_size=64)
