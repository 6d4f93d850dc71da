"""Estimate of the memory that llama.cpp needs for a GGUF at a context length, from the file's header.

Weights, KV cache and repacked copies follow llama.cpp 0.3.36's rules to the byte; the compute buffer and the
vocabulary are estimates. One sequence, f16 cache, flash attention, no accelerator. Nothing is loaded here:
llama.cpp's own figures are in `slices.runtimes.llama_memory_breakdown`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from slices.errors import BadCheckpoint
from slices.gguf.header import GGUFHeader
from slices.gguf.tensor_types import row_bytes, type_name, type_number

_F16, _F32 = 2, 4  # bytes
_PAD = 256  # cells: both caches are padded to it
Q4_0, Q2_K, Q4_K, IQ4_NL, MXFP4 = 2, 10, 12, 20, 39  # ggml's numbers
AVX2 = frozenset({Q4_0, Q4_K, IQ4_NL, MXFP4})
"""The types whose matrices llama.cpp copies into another order on an x86 processor with AVX2."""
AVX512 = AVX2 | {Q2_K}
_TOKEN, _MERGE = 165, 97  # bytes in llama.cpp's vocabulary: measured, on 262,144 tokens


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes, by what holds them.

    `weights` are mapped from the file, so that the system may drop and read them again at will. Of these,
    `lazily_mapped` is looked up by rows, a few kilobytes a token, and need not stay in memory (counted in
    `weights` too); `repacked` are copies, after which as many bytes of `weights` need not stay either.
    """

    weights: int
    lazily_mapped: int
    repacked: int
    kv_cache: int
    compute: int
    vocabulary: int

    @property
    def total(self) -> int:
        """With everything resident, as after loading on a machine that has the room."""
        return self.weights + self.repacked + self.kv_cache + self.compute + self.vocabulary

    @property
    def needed(self) -> int:
        """Without what need not stay. With less than this, the disk is read for every token."""
        return self.total - self.lazily_mapped - self.repacked


def estimate_memory(
    header: GGUFHeader,
    n_ctx: int = 4096,
    n_ubatch: int = 512,
    n_outputs: int = 1,
    swa_full: bool = False,
    repacked_types: frozenset[int] = AVX2,
) -> MemoryEstimate:
    """The memory of one model at one context length.

    Args:
        n_ctx: tokens that the KV cache holds.
        n_ubatch: tokens that are run at once.
        n_outputs: most positions of a batch that have logits; 1 for generation, more for scoring.
        swa_full: sliding layers keep every cell, the C API's default; llama.cpp's own programs keep
            the window and a batch.
        repacked_types: the ggml types that llama.cpp copies on the processor in question.

    Raises:
        BadCheckpoint: the header lacks what decides on memory.
    """
    try:
        dims = _ModelDims.read(header)
    except (KeyError, StopIteration, TypeError, ValueError, IndexError) as error:
        raise BadCheckpoint(
            f"the GGUF header does not say what memory depends on ({type(error).__name__}: {error}); "
            "expected a language model with its settings"
        ) from None
    n_tokens = min(n_ubatch, n_ctx)
    return MemoryEstimate(
        weights=sum(tensor.nbytes for tensor in header.tensors),
        lazily_mapped=sum(t.nbytes for t in header.tensors if t.name == "per_layer_token_embd.weight"),
        repacked=_repacked(header, repacked_types),
        kv_cache=_kv_cache(dims, n_ctx, n_tokens, swa_full),
        compute=_compute(dims, n_ctx, n_tokens, min(n_outputs, n_tokens), swa_full),
        vocabulary=_vocabulary(header, dims.vocab),
    )


def with_types(header: GGUFHeader, types: Mapping[str, str]) -> GGUFHeader:
    """The header with other ggml types, by tensor name: that of a file that is not written yet."""
    tensors = []
    for tensor in header.tensors:
        kind = types.get(tensor.name, type_name(tensor.type))
        nbytes = row_bytes(kind, tensor.shape[0]) * prod(tensor.shape[1:])
        tensors.append(replace(tensor, type=type_number(kind), nbytes=nbytes))
    return replace(header, tensors=tuple(tensors))


@dataclass(frozen=True)
class _ModelDims:
    """The dimensions that memory depends on. Widths are numbers a token; lists have one entry a layer."""

    hidden: int
    vocab: int
    window: int
    ple: int  # of all layers
    sliding: list[bool]
    own_kv: list[bool]
    query: list[int]
    kv: list[int]  # of the keys alone; values are as wide
    ffn: list[int]
    experts: int  # that run for a token
    expert_ffn: int

    @classmethod
    def read(cls, header: GGUFHeader) -> "_ModelDims":
        arch = header.metadata["general.architecture"]
        metadata = {key.removeprefix(f"{arch}."): value for key, value in header.metadata.items()}
        count, hidden = metadata["block_count"], metadata["embedding_length"]
        vocab = next(t.shape[1] for t in header.tensors if t.name == "token_embd.weight")
        sliding = _sliding(metadata, arch, count)
        heads = _each(metadata["attention.head_count"], count)
        kv_heads = _each(metadata.get("attention.head_count_kv", heads), count)
        full_size = metadata.get("attention.key_length", hidden // max(1, heads[0]))
        sizes = [metadata.get("attention.key_length_swa", full_size) if s else full_size for s in sliding]
        return cls(
            hidden=hidden,
            vocab=vocab,
            window=metadata.get("attention.sliding_window", 0),
            ple=metadata.get("embedding_length_per_layer_input", 0) * count,
            sliding=sliding,
            own_kv=[i < count - metadata.get("attention.shared_kv_layers", 0) for i in range(count)],
            query=[size * n for size, n in zip(sizes, heads, strict=True)],
            kv=[size * n for size, n in zip(sizes, kv_heads, strict=True)],
            ffn=_each(metadata["feed_forward_length"], count),
            experts=metadata.get("expert_used_count", 0),
            expert_ffn=metadata.get("expert_feed_forward_length", 0),
        )


def _sliding(metadata: Mapping[str, Any], arch: str, count: int) -> list[bool]:
    """Which layers slide: as listed, else, for a Gemma 3 with a window, all but every sixth."""
    pattern = metadata.get("attention.sliding_window_pattern")
    if isinstance(pattern, list):
        return [bool(each) for each in pattern]
    period = pattern or (6 if arch == "gemma3" and metadata.get("attention.sliding_window") else 1)
    return [(index + 1) % period != 0 for index in range(count)]


def _each(value: int | list[int], count: int) -> list[int]:
    return list(value) if isinstance(value, list) else [value] * count


def _cells(dims: _ModelDims, n_ctx: int, n_tokens: int, swa_full: bool) -> tuple[int, int]:
    """KV cache cells of a full layer and of a sliding one."""
    full = _padded(n_ctx)
    return full, full if swa_full else _padded(min(full, dims.window + n_tokens))


def _padded(cells: int) -> int:
    return -(-cells // _PAD) * _PAD


def _kv_cache(dims: _ModelDims, n_ctx: int, n_tokens: int, swa_full: bool) -> int:
    full, sliding = _cells(dims, n_ctx, n_tokens, swa_full)
    layers = zip(dims.kv, dims.sliding, dims.own_kv, strict=True)
    return sum(2 * _F16 * width * (sliding if slides else full) for width, slides, own in layers if own)


def _compute(dims: _ModelDims, n_ctx: int, n_tokens: int, n_outputs: int, swa_full: bool) -> int:
    """The peak of the compute buffer: inside a layer, with the masks, or at the logits.

    The sums count the vectors that live at once in llama.cpp's graphs. Holes between them may make it
    less by one query's width; found within 10 % on the models of its test.
    """
    full, sliding = _cells(dims, n_ctx, n_tokens, swa_full)
    masks = (full if False in dims.sliding else 0) + (sliding if True in dims.sliding else 0)
    hidden, query = dims.hidden, max(dims.query)
    inside = max(
        3 * (max(dims.ffn) + hidden) + (2 if dims.ple else 1) * query + dims.ple,
        3 * hidden + dims.experts * (3 * dims.expert_ffn + hidden),
        2 * (query + max(dims.kv)) + 3 * hidden + dims.ple,
        4 * dims.ple + 3 * hidden,
    )
    in_layer = n_tokens * (inside * _F32 + masks * _F16)
    at_logits = (n_outputs * (dims.vocab + hidden) + n_tokens * hidden) * _F32
    return max(in_layer, at_logits)


def _repacked(header: GGUFHeader, repacked_types: frozenset[int]) -> int:
    """Matrices of these types that are multiplied; a tied embedding is, as the output layer."""
    names = {tensor.name for tensor in header.tensors}
    looked_up = {"per_layer_token_embd.weight"} | (
        {"token_embd.weight"} if "output.weight" in names else set()
    )
    return sum(
        tensor.nbytes
        for tensor in header.tensors
        if tensor.type in repacked_types
        and len(tensor.shape) > 1
        and tensor.shape[1] % 8 == 0
        and tensor.name not in looked_up
    )


def _vocabulary(header: GGUFHeader, rows: int) -> int:
    merges = header.metadata.get("tokenizer.ggml.merges", 0)
    return _TOKEN * rows + _MERGE * (merges if isinstance(merges, int) else len(merges))
