"""A table of vectors, one a token, distilled from a sentence encoder; a text is the mean of its rows.

It costs a look-up where the encoder costs a forward pass. The method is model2vec's (Tulkens and van Dongen,
2024): each token goes through the encoder alone, PCA makes its vector shorter, and frequent tokens, whose
rank stands for their frequency, count less. Tables are kept under `$MOM_HOME/embedders`.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import routed_text, unit
from router.embedding.sentence import one_thread
from slices import home
from slices.errors import MissingExtra
from slices.files import atomic

DIM = 256
FREQUENT = 1e-3  # of all tokens: one as frequent as this counts half
_AT_ONCE = 512  # tokens through the encoder together

Told = Callable[[int, int], None]


class StaticEmbedder:
    """A model2vec table from a folder. Safe to share by threads, and loads no torch."""

    tuned = False

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
        """The folder's, unless it was given another."""
        return self._name

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of length 1, shape (len(texts), dim); a text of unknown tokens only is a row of zeros."""
        capped = [routed_text(text) for text in texts]
        return unit(np.asarray(self._model.encode(capped, use_multiprocessing=False), dtype=np.float32))


def static_name(encoder: str) -> str:
    """The name of the table that is distilled from an encoder of that name."""
    return f"{encoder}-static-{DIM}"


def static_of(encoder: str, load: Callable[[], Any], told: Told = lambda done, of: None) -> StaticEmbedder:
    """The table of the encoder called `encoder`, distilled where there is none yet (about half a minute).

    Args:
        load: gives the encoder as `router.embedding.sentence.open_encoder` does, called only where it is
        needed. told: called with the tokens that went through it, and their number.
    """
    name = static_name(encoder)
    folder = home.home() / "embedders" / name.replace("/", "--")
    if not folder.is_dir():
        distil(load(), encoder, folder, told)
    return StaticEmbedder(folder, name)


def distil(model: Any, name: str, folder: Path, told: Told = lambda done, of: None) -> None:
    """Write the table of a sentence-transformers model, the encoder called `name`, to `folder`.

    Raises:
        MissingExtra: model2vec or scikit-learn is not installed.
    """
    for package in ("model2vec", "sklearn"):
        if find_spec(package) is None:
            raise MissingExtra({"sklearn": "scikit-learn"}.get(package, package), "route")
    from model2vec import StaticModel
    from sklearn.decomposition import PCA

    alone = _alone(model, told)
    table = PCA(min(DIM, *alone.shape), svd_solver="full").fit_transform(alone) * _rarity(len(alone))[:, None]
    made = StaticModel(
        table.astype(np.float16),
        model.tokenizer.backend_tokenizer,
        {"tokenizer_name": name, "sif_coefficient": FREQUENT, "apply_pca": DIM},
        normalize=True,
        base_model_name=name,
    )
    with atomic.staged(folder, force=True) as partial:
        made.save_pretrained(partial)


def _alone(model: Any, told: Told) -> NDArray[np.float32]:
    """The encoder's vector of every token by itself, between its usual ends, (tokens, dim)."""
    import torch

    before, after = _ends(model.tokenizer)
    count = len(model.tokenizer)
    found = []
    with torch.no_grad(), one_thread():
        for start in range(0, count, _AT_ONCE):
            ids = [[*before, token, *after] for token in range(start, min(start + _AT_ONCE, count))]
            rows = torch.tensor(ids)
            seen = model({"input_ids": rows, "attention_mask": torch.ones_like(rows)})
            found.append(seen["sentence_embedding"].float().numpy())
            told(min(start + _AT_ONCE, count), count)
    return np.concatenate(found)


def _ends(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that a text begins and ends with."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    start = next(at for at in range(len(full)) if full[at : at + len(bare)] == bare)
    return full[:start], full[start + len(bare) :]


def _rarity(count: int) -> NDArray[np.float64]:
    """How much each token counts, (count,), by Zipf's law of its rank (SIF: Arora et al., 2017)."""
    share = 1 / np.arange(2, count + 2)
    share /= share.sum()
    weights: NDArray[np.float64] = FREQUENT / (FREQUENT + share)
    return weights
