"""An embedder that is loaded when it first embeds: many decisions do not need the encoder."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import Embedder, Vectors


class LazyEmbedder:
    """An embedder of a known name, loaded on first use. Thread-safe."""

    def __init__(self, name: str, finetuned: bool, load: Callable[[], Embedder]) -> None:
        self.name, self.finetuned = name, finetuned
        self._load = load
        self._checks: list[Callable[[Embedder], None]] = []
        self._loaded: Embedder | None = None
        self._lock = threading.Lock()

    def on_load(self, check: Callable[[Embedder], None]) -> None:
        """Call `check` with the embedder once it is loaded; what it raises, the first use raises."""
        if self._loaded is not None:
            check(self._loaded)
        self._checks.append(check)

    def load(self) -> Any:
        """The embedder itself."""
        with self._lock:
            if self._loaded is None:
                embedder = self._load()
                for check in self._checks:
                    check(embedder)
                self._loaded = embedder
            return self._loaded

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 (len(texts), dim)."""
        return self.load().embed(texts)

    @property
    def max_tokens(self) -> int:
        """Tokens of a text that `encode` reads."""
        return int(self.load().max_tokens)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each whole text, special tokens included."""
        counts: list[int] = self.load().count_tokens(texts)
        return counts

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of whole texts, float32 (len(texts), dim)."""
        vectors: NDArray[np.float32] = self.load().encode(texts)
        return vectors
