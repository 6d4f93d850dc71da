"""Vocabulary fit: whether a query takes many more tokens in an expert's vocabulary than in the generalist's.

A query in a language or script whose tokens were cut is spelled out in pieces and bytes, which the expert
cannot read well. Only the tokenizers are loaded, never a model.
"""

import filecmp
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from router.embedding.embedder import truncate_middle
from router.errors import BadExperts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER = "tokenizer.json"
MAX_TOKEN_RATIO = 1.3
MAX_CHARS = 256  # of a query that are tokenized: its head and its tail


class VocabularyFit:
    """Compares token counts of a query in experts' tokenizers with the generalist's. Thread-safe.

    Experts without a tokenizer of their own, or with the generalist's, fit every query.
    """

    def __init__(self, folders: Mapping[str, Path], generalist: str, max_token_ratio: float | None) -> None:
        """`folders`: of every model that is served, by name; `max_token_ratio` None: every query fits."""
        self._generalist, self._max_token_ratio = generalist, max_token_ratio
        self._folders = {generalist: folders[generalist]} | _with_other_tokenizer(folders, generalist)
        self._tokenizers: dict[str, Tokenizer] = {}
        self._lock = threading.Lock()

    def load(self) -> None:
        """Load all tokenizers that are compared, so that no query waits for one.

        Raises:
            BadExperts: one cannot be read.
        """
        if self._max_token_ratio is not None and len(self._folders) > 1:
            for name in self._folders:
                self._tokenizer(name)

    def misfit(self, text: str, expert: str) -> str | None:
        """Why `expert` is not asked `text`, or None.

        Raises:
            BadExperts: a tokenizer cannot be read.
        """
        if self._max_token_ratio is None or expert == self._generalist or expert not in self._folders:
            return None
        sample = truncate_middle(text, MAX_CHARS)
        ours, theirs = (self._count(sample, name) for name in (expert, self._generalist))
        if ours <= self._max_token_ratio * theirs:
            return None
        return (
            f"the query has {ours} tokens in the vocabulary of {expert} and {theirs} in that of "
            f"{self._generalist}, over {self._max_token_ratio:g} times as many"
        )

    def _count(self, text: str, name: str) -> int:
        return len(self._tokenizer(name).encode(text, add_special_tokens=False).ids)

    def _tokenizer(self, name: str) -> "Tokenizer":
        with self._lock:
            if name not in self._tokenizers:
                self._tokenizers[name] = _read(self._folders[name] / TOKENIZER)
            return self._tokenizers[name]


def _with_other_tokenizer(folders: Mapping[str, Path], generalist: str) -> dict[str, Path]:
    """The folders whose tokenizer differs from the generalist's, byte by byte."""
    theirs = folders[generalist] / TOKENIZER
    if not theirs.is_file():
        return {}
    return {
        name: folder
        for name, folder in folders.items()
        if (folder / TOKENIZER).is_file() and not filecmp.cmp(folder / TOKENIZER, theirs, shallow=False)
    }


def _read(path: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare exceptions
        raise BadExperts(f"{path} is no tokenizer: {error}") from error
