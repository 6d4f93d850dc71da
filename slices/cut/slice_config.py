"""The config.json of a slice: text only, with every kept layer's settings in the parent.

Values that transformers would derive are written out, since derived defaults may differ between versions.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.architecture.anatomy import Anatomy
from slices.architecture.constraints import ID_KEYS
from slices.cut.identity_layers import SliceLayer
from slices.families.gemma4 import GEMMA4, overrides
from slices.families.table import FULL, WINDOW_FULL_ATTENTION, Family
from slices.tokenizer.files import TokenIdMap, remap_token_ids


def slice_config(
    anatomy: Anatomy,
    slice_layers: Sequence[SliceLayer],
    rows: NDArray[np.int64] | None = None,
    ffn: int | None = None,
) -> dict[str, Any]:
    """The config.json for these layers, vocabulary rows and FFN width (None: the parent's)."""
    windowed = any(layer.windowed for layer in slice_layers)
    text_type = _text_type(anatomy.family, anatomy.model_type, slice_layers[-1], windowed)
    config = dict(anatomy.config) | {
        key: anatomy.root_config[key] for key in ID_KEYS if key in anatomy.root_config
    }
    config |= {
        "model_type": text_type,
        "architectures": [anatomy.family.architectures[text_type]],
        "num_hidden_layers": len(slice_layers),
        "layer_types": [layer.type for layer in slice_layers],
        "tie_word_embeddings": True,
    }
    config.pop(WINDOW_FULL_ATTENTION, None)
    if windowed:
        config[WINDOW_FULL_ATTENTION] = True
    if ffn is not None:
        config["intermediate_size"] = ffn
    if anatomy.family is GEMMA4:
        config |= _gemma4_keys(anatomy, slice_layers)
    if rows is not None:
        config = remap_token_ids(config, TokenIdMap(rows, anatomy.dims.vocab))
        config["vocab_size"] = len(rows)
        if anatomy.dims.ple:
            config["vocab_size_per_layer_input"] = len(rows)
    return config


def config_json(config: Mapping[str, Any]) -> bytes:
    """config.json as bytes."""
    return json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n"


def _text_type(family: Family, parent: str, last: SliceLayer, windowed: bool) -> str:
    """The slice's model_type: the stock one, unless transformers would make its last layer a full one.

    Nor can a stock one say that full-attention layers are windowed.
    """
    stock = {ours: theirs for theirs, ours in family.slice_types.items()}.get(parent, parent)
    if windowed:
        return family.slice_types[stock]
    return stock if last.type == FULL else family.forced_full_types.get(stock, stock)


def _gemma4_keys(anatomy: Anatomy, slice_layers: Sequence[SliceLayer]) -> dict[str, Any]:
    special = overrides(anatomy.config, [layer.type for layer in anatomy.layers])
    full = next((special[i] for i in anatomy.full if i in special), {})
    identity = full or {"head_dim": anatomy.config["global_head_dim"] or 512}
    per_layer = {
        str(new): identity if layer.parent is None else special[layer.parent]
        for new, layer in enumerate(slice_layers)
        if layer.parent is None or layer.parent in special
    }
    keys: dict[str, Any] = {
        "num_kv_shared_layers": sum(layer.shared for layer in slice_layers),
        "per_layer_config": per_layer,
        "global_head_dim": identity.get("head_dim", anatomy.config["head_dim"]),
    }
    if "num_key_value_heads" in full:
        keys["num_global_key_value_heads"] = full["num_key_value_heads"]
    return keys
