"""Static token embeddings distilled from a sentence encoder (model2vec); a text is the mean of its tokens'.

A table look-up in place of a forward pass. The method is model2vec's (Tulkens and van Dongen, 2024): encode
each token alone, reduce by PCA, weight by smooth inverse frequency with Zipf's law over token ids.
`model2vec.distill` itself gives other vectors here (docs/log.md). Tables are cached under
`$MOM_HOME/embedders`.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import l2_normalize, truncate_middle
from router.embedding.sentence import one_thread
from slices import home
from slices.errors import MissingExtra
from slices.files import atomic
from slices.progress import Progress, no_progress

DIM = 256
SIF_COEFFICIENT = 1e-3  # a token of this probability gets weight 1/2
_BATCH_SIZE = 512  # tokens
_STAGE = "distill static embeddings"


class StaticEmbedder:
    """A model2vec model from a folder. Thread-safe; loads no torch."""

    finetuned = False

    def __init__(self, folder: Path, name: str | None = None) -> None:
        """Load the table.

        Raises:
            MissingExtra: model2vec is not installed.
        """
        if find_spec("model2vec") is None:
            raise MissingExtra("model2vec", "route")
        from model2vec import StaticModel

        self._name = name or folder.resolve().name
        self._model = StaticModel.from_pretrained(folder, force_download=False)

    @property
    def name(self) -> str:
        """The given name, else the folder's."""
        return self._name

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, float32 (len(texts), dim); a text of unknown tokens only is a zero row."""
        truncated = [truncate_middle(text) for text in texts]
        vectors = self._model.encode(truncated, use_multiprocessing=False)
        return l2_normalize(np.asarray(vectors, dtype=np.float32))


def static_name(encoder: str) -> str:
    """The name of the static embeddings of an encoder."""
    return f"{encoder}-static-{DIM}"


def open_static(encoder: str, load: Callable[[], Any], progress: Progress = no_progress) -> StaticEmbedder:
    """The static embeddings of the encoder called `encoder`, distilled on first use (about half a minute).

    Args:
        load: returns the encoder as `router.embedding.sentence.open_encoder` does; called only to distill.
        progress: called with tokens encoded and their total.
    """
    name = static_name(encoder)
    folder = home.home() / "embedders" / name.replace("/", "--")
    if not folder.is_dir():
        distill(load(), encoder, folder, progress)
    return StaticEmbedder(folder, name)


def distill(model: Any, name: str, folder: Path, progress: Progress = no_progress) -> None:
    """Write the static embeddings of a sentence-transformers model, called `name`, to `folder`.

    Raises:
        MissingExtra: model2vec or scikit-learn is not installed.
    """
    for package in ("model2vec", "sklearn"):
        if find_spec(package) is None:
            raise MissingExtra({"sklearn": "scikit-learn"}.get(package, package), "route")
    from model2vec import StaticModel
    from sklearn.decomposition import PCA

    vectors = _token_vectors(model, progress)
    pca = PCA(min(DIM, *vectors.shape), svd_solver="full")
    table = pca.fit_transform(vectors) * _sif_weights(len(vectors))[:, None]
    static = StaticModel(
        table.astype(np.float16),
        model.tokenizer.backend_tokenizer,
        {"tokenizer_name": name, "sif_coefficient": SIF_COEFFICIENT, "apply_pca": DIM},
        normalize=True,
        base_model_name=name,
    )
    with atomic.staged(folder, force=True) as partial:
        static.save_pretrained(partial)


def _token_vectors(model: Any, progress: Progress) -> NDArray[np.float32]:
    """The encoder's vector of every token alone, between its special tokens, (vocabulary, dim)."""
    import torch

    prefix, suffix = _special_tokens(model.tokenizer)
    count = len(model.tokenizer)
    batches = []
    with torch.no_grad(), one_thread():
        for start in range(0, count, _BATCH_SIZE):
            end = min(start + _BATCH_SIZE, count)
            ids = torch.tensor([[*prefix, token, *suffix] for token in range(start, end)])
            output = model({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
            batches.append(output["sentence_embedding"].float().numpy())
            progress(_STAGE, end, count)
    return np.concatenate(batches)


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    start = next(at for at in range(len(full)) if full[at : at + len(bare)] == bare)
    return full[:start], full[start + len(bare) :]


def _sif_weights(count: int) -> NDArray[np.float64]:
    """Smooth inverse frequency weights, (count,), by Zipf's law of token ids (Arora et al., 2017)."""
    probability = 1 / np.arange(2, count + 2)
    probability /= probability.sum()
    weights: NDArray[np.float64] = SIF_COEFFICIENT / (SIF_COEFFICIENT + probability)
    return weights
