"""FFN neuron importance on a domain's text, for width pruning.

A neuron's score is the mean of |act(gate) * up| over the text's tokens, times the norm of its column in
down_proj: its contribution to the residual stream. Ranking neurons by mean activation on a small
calibration text is Minitron's (Muralidharan et al., 2024, arXiv 2407.14679); weighting activations by the
norm of the matrix that reads them is Wanda's (Sun et al., 2023, arXiv 2306.11695).

Scores are cached as safetensors under `$MOM_HOME/scores`. `slices.cut.neurons` selects by them.
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
from slices.errors import BadCheckpoint
from slices.files import atomic
from slices.home import home
from slices.progress import Progress, no_progress
from slices.quant.calibration import token_batches
from slices.runtimes.torch_runtime import load_libraries
from slices.slice_classes import register
from slices.text.corpus import Corpus

MAX_TOKENS = 32_768  # of the text
CONTEXT = 512
SAMPLING = "stretches"  # of the text: those of `token_batches`
_DOWN_PROJ = re.compile(r"(?:^|\.)(?:language_model|model)\.layers\.(\d+)\.mlp\.down_proj$")
_FLOAT32_BELOW = 4_000_000_000  # bytes of weights up to which float32 is used on a CPU
NeuronScores = Mapping[int, NDArray[np.float32]]  # layer -> (neurons,)


def neuron_scores(
    checkpoint: Checkpoint, anatomy: Anatomy, text: Corpus, progress: Progress = no_progress
) -> NeuronScores:
    """Scores of every neuron in every layer on `text`, cached.

    Args:
        progress: counts tokens.

    Raises:
        MissingExtra: torch or transformers is not installed.
        NotFound: the parent has no tokenizer.json, or the text has no token.
        BadCheckpoint: the cache is damaged, or the parent gives NaN or infinity.
    """
    cache = home() / "scores" / f"{_cache_key(checkpoint, text)}.safetensors"
    if cache.is_file():
        return _read(cache, anatomy)
    batches = token_batches(checkpoint.folder, text.documents, MAX_TOKENS, CONTEXT)
    scores = _measure(checkpoint.folder, checkpoint.nbytes, batches, progress)
    _check(scores, anatomy, checkpoint.folder)
    _write(cache, scores)
    return scores


def _cache_key(checkpoint: Checkpoint, text: Corpus) -> str:
    parts = [fingerprint(checkpoint), text.sha256, MAX_TOKENS, CONTEXT, SAMPLING]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _measure(
    folder: Path, nbytes: int, batches: list[list[int]], progress: Progress
) -> dict[int, NDArray[np.float32]]:
    """Run the parent on every batch with a hook on the input of each down_proj."""
    torch, transformers = load_libraries()
    register()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    float32 = device == "cpu" and nbytes < _FLOAT32_BELOW
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32 if float32 else torch.bfloat16,
        local_files_only=True,
        trust_remote_code=False,
    )
    model = model.eval().to(device)
    down_projs = dict(_down_projections(model))
    sums = {i: torch.zeros(down.in_features, dtype=torch.float64) for i, down in down_projs.items()}
    hooks = [down.register_forward_pre_hook(_accumulate(sums[i])) for i, down in down_projs.items()]
    total, done = sum(map(len, batches)), 0
    with torch.inference_mode():
        for ids in batches:
            model.base_model(input_ids=torch.tensor([ids], device=device), use_cache=False)
            done += len(ids)
            progress("score neurons", done, total)
    for hook in hooks:
        hook.remove()
    norms = {i: down.weight.detach().float().norm(dim=0).cpu() for i, down in down_projs.items()}
    return {i: (sums[i] / total * norms[i]).float().numpy() for i in down_projs}


def _down_projections(model: Any) -> Iterator[tuple[int, Any]]:
    """The down_proj of every decoder layer, by its index; not those of a vision or audio tower."""
    for name, module in model.named_modules():
        match = _DOWN_PROJ.search(name)
        if match is not None:
            yield int(match[1]), module


def _accumulate(total: Any) -> Callable[[Any, tuple[Any, ...]], None]:
    def add(module: Any, inputs: tuple[Any, ...]) -> None:
        flat = inputs[0].reshape(-1, inputs[0].shape[-1])  # (tokens, neurons)
        total.add_(flat.abs().double().sum(dim=0).cpu())

    return add


def _write(cache: Path, scores: NeuronScores) -> None:
    from safetensors.numpy import save

    with atomic.staged(cache, force=True) as partial:
        partial.write_bytes(save({f"layers.{i}": values for i, values in scores.items()}))


def _read(cache: Path, anatomy: Anatomy) -> NeuronScores:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        stored = load(cache.read_bytes())
    except SafetensorError as error:
        raise BadCheckpoint(f"{cache}: damaged scores: {error}; delete the file") from None
    scores = {int(name.rpartition(".")[2]): values for name, values in stored.items()}
    _check(scores, anatomy, cache)
    return scores


def _check(scores: NeuronScores, anatomy: Anatomy, where: Path) -> None:
    for layer in anatomy.layers:
        values = scores.get(layer.index)
        if values is None or values.shape != (layer.ffn,) or not bool(np.isfinite(values).all()):
            found = "none" if values is None else f"shape {values.shape}"
            raise BadCheckpoint(
                f"{where}: layer {layer.index} needs {layer.ffn} finite neuron scores, found {found}"
            )
