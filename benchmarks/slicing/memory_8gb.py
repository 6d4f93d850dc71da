"""Compute what Gemma 4 E4B and its cuts weigh as GGUF files, and what llama.cpp needs to run them.

No weights are needed: checkpoints and exports are files of holes with true headers. llama.cpp itself says
which type each tensor would get and what it would allocate for cache and computing; the rest is
`slices.runtimes.memory_estimate`. A tokenizer of the right size is made up unless one is given (a few MB
either way).
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models.synthetic_e4b import E4B, slots, tokenizer_json
from benchmarks.paths import RESULTS
from slices.architecture.anatomy import read_anatomy
from slices.architecture.layer_spec import select_layers
from slices.checkpoint import open_checkpoint
from slices.cut.plan import Selection, make_plan
from slices.export import write_gguf
from slices.files.safetensors_header import parse_json_object
from slices.files.safetensors_writer import Layout, lay_out
from slices.gguf.header import GGUFHeader, read_gguf_header
from slices.quant.recipe import make_recipe
from slices.quant.size import SizePrediction, predict_from_export
from slices.quant.types import LLAMA_CPP
from slices.runtimes.llama_memory_breakdown import memory_breakdown
from slices.runtimes.memory_estimate import estimate_memory, with_types

MACHINE, SYSTEM = 8e9, 2e9  # bytes: what there is, and what the system keeps
CUTS = {
    "whole": ("all", None),
    "SWA only": ("swa", None),
    "vocabulary 65,536": ("all", 65536),
    "SWA only, vocabulary 65,536": ("swa", 65536),
}
TYPES = ("Q2_K", "Q3_K_M", "IQ4_XS", "Q4_K_M", "Q8_0", "BF16")
EMBEDDING_TYPES = (LLAMA_CPP, "Q4_K")
CONTEXTS = (4096, 32768)


def write_holes(folder: Path, config: Mapping[str, Any], layout: Layout, tokenizer: str) -> None:
    """A checkpoint whose weights are a hole in the file, which takes no room on the disk."""
    folder.mkdir()
    for shard in layout.shards:
        with (folder / shard.file).open("wb") as file:
            file.write(shard.header)
            file.truncate(shard.nbytes)
    if layout.index is not None:
        (folder / "model.safetensors.index.json").write_bytes(layout.index)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True}))


def tokenizer_of(rows: int, given: Path | None) -> str:
    """The tokenizer given, if it is of this size, else a made-up one."""
    if given is not None:
        document = parse_json_object(given.read_bytes(), given)
        if len(document["model"]["vocab"]) == rows:
            return given.read_text(encoding="utf-8")
    return json.dumps(tokenizer_json(rows), ensure_ascii=False)


def cut(parent: Path, layers: str, rows: int | None, folder: Path) -> None:
    """The checkpoint that `mom slice` would make, as holes. Which rows stay changes no size."""
    checkpoint = open_checkpoint(parent)
    anatomy = read_anatomy(checkpoint.config)
    kept = select_layers(layers, [layer.type for layer in anatomy.layers])
    plan = make_plan(checkpoint, anatomy, Selection(kept, rows=None if rows is None else np.arange(rows)))
    document = parent / "tokenizer.json"
    write_holes(folder, plan.config, plan.layout, tokenizer_of(plan.vocabulary, document))


def stated_by_llama_cpp(path: Path) -> dict[str, Any]:
    """Cache and compute buffer by context, as llama.cpp states them."""
    found = {}
    for context in CONTEXTS:
        windows, everything = memory_breakdown(path, context), memory_breakdown(path, context, swa_full=True)
        found[str(context)] = {**asdict(windows), "kv_cache_swa_full": everything.kv_cache}
    return found


def case(folder: Path, exported: Path) -> dict[str, Any]:
    """All types and embedding types of one checkpoint."""
    write_gguf(folder, exported, "eight-gb", data=False)
    header, stated = read_gguf_header(exported), stated_by_llama_cpp(exported)
    files = []
    for kind in TYPES:
        for embedding_type in EMBEDDING_TYPES if kind != "BF16" else EMBEDDING_TYPES[:1]:
            predicted = predict_from_export(exported, make_recipe(kind, embedding_type), with_imatrix=False)
            memory = {context: resident(header, predicted, context, stated) for context in CONTEXTS}
            file = {"type": kind, "embedding_type": embedding_type, "bytes": predicted.bytes}
            files.append(file | {"bits_per_weight": predicted.bits_per_weight, "memory": memory})
    return {"llama_cpp": stated, "files": files}


def resident(
    header: GGUFHeader, predicted: SizePrediction, context: int, stated: Mapping[str, Any]
) -> dict[str, Any]:
    """What is computed, but for the compute buffer, of which llama.cpp states the size."""
    computed = estimate_memory(with_types(header, predicted.types), context)
    memory = replace(computed, compute=round(stated[str(context)]["compute"]))
    room = MACHINE - SYSTEM
    fits = "whole" if memory.total <= room else "needed" if memory.needed <= room else "no"
    estimated = {"compute_estimated": computed.compute}
    return asdict(memory) | estimated | {"total": memory.total, "needed": memory.needed, "fits": fits}


def measure(scratch: Path, config: Mapping[str, Any], tokenizer: Path | None) -> dict[str, Any]:
    """All cuts."""
    parent = scratch / "parent"
    layout = lay_out(slots(config, with_towers=False), shard_bytes=2**60)
    write_holes(parent, config, layout, tokenizer_of(config["vocab_size"], tokenizer))
    cases: dict[str, Any] = {}
    for number, (name, (layers, rows)) in enumerate(CUTS.items()):
        folder = scratch / f"cut-{number}"
        cut(parent, layers, rows, folder)
        cases[name] = case(folder, scratch / f"{number}.gguf")
        print(f"{name}: done", file=sys.stderr)
    return cases


def main() -> None:
    """Write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, help="a config.json in place of E4B's")
    parser.add_argument("--tokenizer", type=Path, help="its tokenizer.json in place of a made-up one")
    parser.add_argument("--out", type=Path, default=RESULTS / "memory_8gb.json")
    args = parser.parse_args()
    outer = parse_json_object(args.config.read_bytes(), args.config) if args.config else E4B
    config = outer.get("text_config", outer)
    with tempfile.TemporaryDirectory(prefix="mom-eight-gb-") as scratch:
        cases = measure(Path(scratch), config, args.tokenizer)
    figures = {
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"llama-cpp-python": version("llama-cpp-python")},
        "machine": MACHINE,
        "system": SYSTEM,
        "batch": 512,
        "cases": cases,
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
