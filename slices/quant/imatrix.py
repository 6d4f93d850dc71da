"""The importance matrix of a slice on its domain's text: mean squared inputs, by hooks on torch modules.

What llama.cpp's `llama-imatrix` measures, without that program and before there is a GGUF: the bf16 slice
reads the domain's text and a hook on every matrix adds up the squares of what enters each column. Weighing
a quantizer's rounding errors so is Ivan Kawrakow's (ggml-org/llama.cpp#4861, #4930). Only calibration text is
read, never what is held out. Which of it is in `slices.quant.calibration`, the file in
`slices.quant.imatrix_file`, what share of the matrices it covers in `slices.quant.coverage`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from slices.architecture.anatomy import Anatomy, match_tensors, read_anatomy
from slices.checkpoint import open_checkpoint
from slices.errors import NotFound
from slices.export import DIALECTS, gguf_names
from slices.files.safetensors_header import Entry
from slices.gguf.tensors import list_sources
from slices.progress import Progress, no_progress
from slices.quant.calibration import CONTEXT, TOKENS, token_batches
from slices.quant.imatrix_file import Imatrix, means
from slices.runtimes.torch_runtime import load_libraries
from slices.slice_classes import register
from slices.text.corpus import Corpus

_WIDEN_BELOW = 4_000_000_000  # bytes of weights up to which float32 is used on a processor
_UP, _DOWN = "gate_up_proj", "down_proj"  # parameters of a module of experts, not modules of their own
Batches = Sequence[Sequence[int]]


@dataclass(frozen=True)
class _Total:
    """Sums of squared inputs of one matrix, float64 (experts, columns), and rows, int64 (experts,)."""

    sums: Any
    counts: Any

    def add(self, rows: Any, expert: int = 0) -> None:
        """Add the squares of `rows` (..., columns) to those of one expert."""
        flat = rows.reshape(-1, rows.shape[-1])
        self.sums[expert] += flat.double().square().sum(dim=0).cpu()
        self.counts[expert] += len(flat)


def collect(
    folder: Path,
    documents: Corpus | Sequence[str],
    tokens: int = TOKENS,
    context: int = CONTEXT,
    progress: Progress = no_progress,
) -> Imatrix:
    """Run the slice in `folder` on a domain's text.

    Args:
        documents: a corpus, of which only the calibration part is read, or such documents themselves.
        tokens: to read, at least, where the text has as many.
        context: most tokens that the model sees at once.
        progress: counts tokens.

    Raises:
        MissingExtra: torch or transformers is not installed.
        NotFound: there is no slice or no tokenizer.json, or the text has no token.
        Unsupported: llama.cpp has no names for the model's tensors.
        BadCheckpoint: a file is damaged, or the model gives NaN or infinity; the tensor is named.
    """
    text = documents.calibration() if isinstance(documents, Corpus) else Corpus("files", tuple(documents))
    batches = token_batches(folder, text.documents, tokens, context)
    return replace(collect_on(folder, batches, progress), sha256=text.sha256, context=context)


def collect_on(folder: Path, batches: Batches, progress: Progress = no_progress) -> Imatrix:
    """As `collect`, on given token ids, each batch on its own from position 0.

    Identity layers, which only the GGUF has, get entries that weigh every column alike, since types of few
    bits want an entry for every matrix.
    """
    checkpoint = open_checkpoint(folder)
    anatomy = read_anatomy(checkpoint.config)
    entries, _ = match_tensors(checkpoint, anatomy)  # refuses a missing tensor, which would be random
    if not entries:
        raise NotFound(f"{folder} has no weights to measure an importance matrix with")
    there = gguf_names(anatomy)
    model = _load(folder, checkpoint.nbytes)
    names = {}
    for name, _ in model.named_parameters():
        prefix = next((p for p in anatomy.family.prefixes if name.startswith(p)), "")
        if name.removeprefix(prefix) in there:
            names[name] = there[name.removeprefix(prefix)]
    found = hook_model(model, names, batches, progress)
    identity_layers = _identity_layer_columns(entries, anatomy)
    ones = {name: np.ones(columns, np.float32) for name, columns in identity_layers.items()}
    unread = {name: np.zeros(1, np.int64) for name in identity_layers}
    return replace(found, values={**found.values, **ones}, counts={**found.counts, **unread})


def _identity_layer_columns(entries: Mapping[str, Entry], anatomy: Anatomy) -> dict[str, int]:
    """Columns of the matrices that the GGUF has and the slice does not, by their name there."""
    dialect, named = DIALECTS[anatomy.family.name], set(gguf_names(anatomy).values())
    sources = list_sources(entries, anatomy, dialect, dialect.arrange(anatomy), "BF16")
    return {each.name: each.shape[-1] for each in sources if each.matrix and each.name not in named}


def hook_model(
    model: Any, names: Mapping[str, str], batches: Batches, progress: Progress = no_progress
) -> Imatrix:
    """Run any model of transformers on batches of token ids and add up what enters its matrices.

    Args:
        model: in eval mode; rows of its matrices may be stored in another order in the GGUF, columns not.
        names: of a parameter in torch (`model.layers.0.mlp.up_proj.weight`) -> its name in the GGUF
            (`blk.0.ffn_up.weight`). Those that are no Linear and no Gemma 4 experts are passed over.

    Returns:
        What was executed, and nothing else; `context` is the longest batch, `sha256` is left empty.

    Raises:
        BadCheckpoint: a matrix was given NaN or infinity; it is named.
    """
    torch, _ = load_libraries()
    totals: dict[str, _Total] = {}
    paths, hooks = [], []
    for path, module in model.named_modules():
        watch = _watcher(torch, path, module, names, totals)
        if watch is not None:
            paths.append(path)
            hooks.append(module.register_forward_pre_hook(watch))
    inner = all(path.startswith(f"{model.base_model_prefix}.") for path in paths)
    try:
        _run(torch, model.base_model if inner else model, batches, progress)
    finally:
        for hook in hooks:
            hook.remove()
    return _found(totals, batches)


def _watcher(
    torch: Any, path: str, module: Any, names: Mapping[str, str], totals: dict[str, _Total]
) -> Callable[[Any, tuple[Any, ...]], None] | None:
    """What to hook on a module, if it is one of the named matrices, with its totals set up."""

    def total(parameter: str, experts: int, columns: int) -> _Total:
        made = _Total(
            torch.zeros(experts, columns, dtype=torch.float64), torch.zeros(experts, dtype=torch.int64)
        )
        name = names.get(f"{path}.{parameter}")
        if name is not None:
            totals[name] = made
        return made

    if f"{path}.weight" in names and isinstance(module, torch.nn.Linear):
        dense = total("weight", 1, module.in_features)
        return lambda _, inputs: dense.add(inputs[0])
    if f"{path}.{_UP}" in names or f"{path}.{_DOWN}" in names:
        up = total(_UP, len(module.gate_up_proj), module.gate_up_proj.shape[2])
        down = total(_DOWN, len(module.down_proj), module.down_proj.shape[2])
        return lambda _, inputs: _add_experts(torch, module, inputs, up, down)
    return None


def _add_experts(torch: Any, module: Any, inputs: tuple[Any, ...], up: _Total, down: _Total) -> None:
    """Add what enters both matrices of every expert; the second is given what the first makes of it."""
    hidden, chosen = inputs[0], inputs[1]  # (tokens, hidden), (tokens, experts a token)
    for expert in chosen.unique().tolist():
        rows = hidden[(chosen == expert).any(dim=-1)]
        up.add(rows, expert)
        gate, value = torch.nn.functional.linear(rows, module.gate_up_proj[expert]).chunk(2, dim=-1)
        down.add(module.act_fn(gate) * value, expert)


def _run(torch: Any, model: Any, batches: Batches, progress: Progress) -> None:
    device = next(model.parameters()).device
    done, total = 0, sum(map(len, batches))
    with torch.inference_mode():
        for ids in batches:
            model(input_ids=torch.tensor([list(ids)], device=device), use_cache=False)
            done += len(ids)
            progress("importance matrix", done, total)


def _found(totals: Mapping[str, _Total], batches: Batches) -> Imatrix:
    values, counts = {}, {}
    for name, total in totals.items():
        if total.counts.any():
            counts[name] = total.counts.numpy().astype(np.int64)
            values[name] = means(total.sums.numpy(), counts[name], name)
    return Imatrix(
        values=values,
        counts=counts,
        tokens=sum(map(len, batches)),
        context=max(map(len, batches), default=CONTEXT),
    )


def _load(folder: Path, nbytes: int) -> Any:
    torch, transformers = load_libraries()
    register()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wide = device == "cpu" and nbytes < _WIDEN_BELOW
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32 if wide else torch.bfloat16,
        local_files_only=True,
        trust_remote_code=False,
    )
    return model.eval().to(device)
