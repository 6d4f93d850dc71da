"""How much each FFN neuron of the parent matters on a domain's text, measured by running the parent.

A neuron's score is the mean of |act(gate) * up| over the text's tokens, times the norm of its column in
down_proj: how much it adds to the residual stream. The mean activation over a small calibration text is
how Minitron ranks neurons (Muralidharan et al., 2024, arXiv 2407.14679); weighing what enters a matrix by
the matrix is from Wanda (Sun et al., 2023, arXiv 2306.11695).

Scores are cached as safetensors under `$MOM_HOME/scores`. Which neurons stay is chosen in
`slices.cut.neurons`.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.architecture.anatomy import Anatomy
from slices.checkpoint import Checkpoint, fingerprint
from slices.errors import BadCheckpoint, NotFound
from slices.files import atomic
from slices.gemma4_slice import register
from slices.home import home
from slices.runtimes.torch_runtime import load_libraries
from slices.text.corpus import Corpus

TOKENS = 32_768  # of the text, at most
CONTEXT = 512
_DOWN = re.compile(r"(?:^|\.)(?:language_model|model)\.layers\.(\d+)\.mlp\.down_proj$")
_WIDEN_BELOW = 4_000_000_000  # bytes of weights up to which float32 is used on a processor
Progress = Callable[[int, int], None]
Scores = Mapping[int, NDArray[np.float32]]  # the parent's layer -> a score for each of its neurons


def neuron_scores(
    checkpoint: Checkpoint, anatomy: Anatomy, text: Corpus, progress: Progress = lambda done, total: None
) -> Scores:
    """Scores of every neuron in every layer on `text`, from the cache where they are there.

    Args:
        progress: told the tokens done and their total.

    Raises:
        MissingExtra: torch or transformers is not installed.
        NotFound: the parent has no tokenizer.json, or the text has no token.
        BadCheckpoint: the cache is damaged, or the parent gives NaN or infinity.
    """
    cache = home() / "scores" / f"{_identity(checkpoint, text)}.safetensors"
    if cache.is_file():
        return _read(cache, anatomy)
    scores = _measure(checkpoint.folder, checkpoint.nbytes, _batches(checkpoint.folder, text), progress)
    _check(scores, anatomy, checkpoint.folder)
    _write(cache, scores)
    return scores


def _identity(checkpoint: Checkpoint, text: Corpus) -> str:
    parts = [fingerprint(checkpoint), text.sha256, TOKENS, CONTEXT]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _batches(folder: Path, text: Corpus) -> list[list[int]]:
    """Token ids of the documents, each cut to CONTEXT, until TOKENS are there."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise NotFound(f"{folder} has no tokenizer.json, which scoring needs")
    tokenizer = Tokenizer.from_file(str(path))
    bos = tokenizer.token_to_id("<bos>")
    found: list[list[int]] = []
    for document in text.documents:
        ids = tokenizer.encode(document, add_special_tokens=False).ids
        found.append([*([] if bos is None else [bos]), *ids][:CONTEXT])
        if sum(map(len, found)) >= TOKENS:
            break
    if not any(found):
        raise NotFound("the domain's text has no token to score on")
    return [ids for ids in found if ids]


def _measure(
    folder: Path, nbytes: int, batches: list[list[int]], progress: Progress
) -> dict[int, NDArray[np.float32]]:
    """Run the parent on every batch with a hook on what enters each down_proj."""
    torch, transformers = load_libraries()
    register()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wide = device == "cpu" and nbytes < _WIDEN_BELOW
    kind = torch.float32 if wide else torch.bfloat16
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=kind, local_files_only=True, trust_remote_code=False
    )
    model = model.eval().to(device)
    downs = dict(_down_projections(model))
    sums = {i: torch.zeros(down.in_features, dtype=torch.float64) for i, down in downs.items()}
    hooks = [down.register_forward_pre_hook(_adding_to(sums[i])) for i, down in downs.items()]
    total, done = sum(map(len, batches)), 0
    with torch.inference_mode():
        for ids in batches:
            model.base_model(input_ids=torch.tensor([ids], device=device), use_cache=False)
            done += len(ids)
            progress(done, total)
    for hook in hooks:
        hook.remove()
    norms = {i: down.weight.detach().float().norm(dim=0).cpu() for i, down in downs.items()}
    return {i: (sums[i] / total * norms[i]).float().numpy() for i in downs}


def _down_projections(model: Any) -> Iterator[tuple[int, Any]]:
    """The down_proj of every decoder layer, by its number; not those of a vision or audio tower."""
    for name, module in model.named_modules():
        found = _DOWN.search(name)
        if found is not None:
            yield int(found[1]), module


def _adding_to(total: Any) -> Callable[[Any, tuple[Any, ...]], None]:
    def add(module: Any, inputs: tuple[Any, ...]) -> None:
        flat = inputs[0].reshape(-1, inputs[0].shape[-1])  # (tokens, neurons)
        total.add_(flat.abs().double().sum(dim=0).cpu())

    return add


def _write(cache: Path, scores: Scores) -> None:
    from safetensors.numpy import save

    with atomic.staged(cache, force=True) as partial:
        partial.write_bytes(save({f"layers.{i}": values for i, values in scores.items()}))


def _read(cache: Path, anatomy: Anatomy) -> Scores:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        stored = load(cache.read_bytes())
    except SafetensorError as error:
        raise BadCheckpoint(f"{cache}: damaged scores: {error}; delete the file") from None
    scores = {int(name.rpartition(".")[2]): values for name, values in stored.items()}
    _check(scores, anatomy, cache)
    return scores


def _check(scores: Scores, anatomy: Anatomy, where: Path) -> None:
    for layer in anatomy.layers:
        values = scores.get(layer.index)
        if values is None or values.shape != (layer.ffn,) or not bool(np.isfinite(values).all()):
            found = "none" if values is None else f"shape {values.shape}"
            raise BadCheckpoint(
                f"{where}: layer {layer.index} needs {layer.ffn} finite neuron scores, found {found}"
            )
