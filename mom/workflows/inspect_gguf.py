"""`mom inspect FILE.gguf`: architecture, layers, tensor types, size and tokenizer from the header."""

from collections import Counter
from pathlib import Path
from typing import Any

from mom.display import console
from slices.gguf.header import GGUFHeader, read_gguf_header
from slices.gguf.layout import per_layer, setting
from slices.gguf.tensor_types import type_name


def is_gguf(model: str) -> bool:
    """Whether MODEL names a GGUF file."""
    return model.endswith(".gguf") and Path(model).is_file()


def inspect_gguf(path: Path) -> dict[str, Any]:
    """The figures of a GGUF file, as `mom inspect FILE.gguf --json` prints them.

    Raises:
        BadCheckpoint: it is no GGUF file, is cut short, or its header contradicts itself.
    """
    header = read_gguf_header(path)
    return {
        "format": "gguf",
        "architecture": header.metadata.get("general.architecture"),
        "name": header.metadata.get("general.name"),
        "layers": setting(header, "block_count"),
        "hidden_size": setting(header, "embedding_length"),
        "context_length": setting(header, "context_length"),
        "feed_forward_length": per_layer(header, "feed_forward_length"),
        "identity_layers": list(header.metadata.get("mom.identity_layers", [])),
        "tensors": {tensor.name: type_name(tensor.type) for tensor in header.tensors},
        "types": _types(header),
        "parameters": sum(tensor.weights for tensor in header.tensors),
        "bits_per_weight": round(header.bits_per_weight, 3),
        "bytes": path.stat().st_size,
        "tokenizer": {
            "model": header.metadata.get("tokenizer.ggml.model"),
            "tokens": header.length("tokenizer.ggml.tokens"),
            "merges": header.length("tokenizer.ggml.merges"),
            "chat_template": "tokenizer.chat_template" in header.metadata,
        },
    }


def _types(header: GGUFHeader) -> dict[str, dict[str, int]]:
    """Tensors and bytes by ggml type, the most bytes first."""
    counts, nbytes = Counter[str](), Counter[str]()
    for tensor in header.tensors:
        counts[type_name(tensor.type)] += 1
        nbytes[type_name(tensor.type)] += tensor.nbytes
    return {name: {"tensors": counts[name], "bytes": size} for name, size in nbytes.most_common()}


def show_gguf(model: str, figures: dict[str, Any]) -> None:
    """The same as a table."""
    tokenizer = figures["tokenizer"]
    rows = [
        [name, str(each["tensors"]), console.size(each["bytes"])] for name, each in figures["types"].items()
    ]
    console.out.print(
        f"{model}: {figures['architecture']}, {figures['layers']} layers, {console.size(figures['bytes'])}, "
        f"{figures['bits_per_weight']} bits per weight",
        soft_wrap=True,
        markup=False,
    )
    console.print_table("tensor types", ["type", "tensors", "size"], rows)
    console.out.print(
        f"tokenizer {tokenizer['model']}: {tokenizer['tokens']:,} tokens, {tokenizer['merges']:,} merges",
        soft_wrap=True,
        markup=False,
    )
