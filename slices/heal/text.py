"""The domain's text as a slice reads it: rows to learn from, windows to be measured on.

Every row is a bos and the next `context` - 1 tokens of a stream of documents, which begin with a bos each.
The documents come in the order of their hashes, so a run sees the same rows on every machine. Runs nothing.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.errors import BadConfig, NotFound
from slices.heal.settings import Healing
from slices.measure.heldout import Heldout, cut_heldout
from slices.text.corpus import Corpus

HELDOUT_BYTES = 16_000
_AT_ONCE = 64  # documents tokenized together


@dataclass(frozen=True)
class Text:
    """What one run learns from and is measured on, in the slice's token ids."""

    rows: NDArray[np.int32]  # (rows, context)
    windows: tuple[NDArray[np.int32], ...]  # a bos first
    heldout: Heldout
    seed: int

    @property
    def sha256(self) -> str:
        """Identity of all rows and windows."""
        digest = hashlib.sha256(str(self.rows.shape).encode() + self.rows.tobytes())
        for window in self.windows:
            digest.update(len(window).to_bytes(8, "little") + window.tobytes())
        return digest.hexdigest()

    def numbers(self, step: int, count: int) -> NDArray[np.int64]:
        """Which rows a step of `count` rows reads: every row once, in a new order, again and again."""
        wanted = np.arange(step * count, (step + 1) * count)
        total = len(self.rows)
        orders = {n: self._order(n) for n in set((wanted // total).tolist())}
        return np.array([orders[at // total][at % total] for at in wanted.tolist()], dtype=np.int64)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))


def read_text(folder: Path, corpus: Corpus, healing: Healing, heldout_bytes: int = HELDOUT_BYTES) -> Text:
    """Tokenize as much of a domain's calibration text as the steps read, and a sample of its held-out text.

    Raises:
        NotFound: the slice has no tokenizer.json or no bos, or the text has less than a row of tokens.
        BadConfig: fewer than two of the documents are held out, so that nothing can be measured.
    """
    tokenizer, bos = _tokenizer(folder)
    learned, kept = _sides(corpus)
    rows = _rows(tokenizer, bos, learned, healing)
    try:
        heldout = cut_heldout(kept, heldout_bytes)
    except BadConfig:
        raise BadConfig(
            f"the text has {len(kept)} held-out documents, and healing is measured on at least two; "
            "bring more text with --corpus"
        ) from None
    texts = [window.text for window in heldout.windows]
    windows = [np.array([bos, *ids], dtype=np.int32) for ids in _encoded(tokenizer, texts)]
    return Text(rows, tuple(windows), heldout, healing.seed)


def _sides(corpus: Corpus) -> tuple[list[str], list[str]]:
    """Documents to learn from and documents to measure on; never the same ones."""
    kept = list(corpus.heldout().documents)
    return [text for text in corpus.calibration().documents if text not in set(kept)], kept


def _rows(tokenizer: Any, bos: int, documents: Sequence[str], healing: Healing) -> NDArray[np.int32]:
    wanted = healing.steps * healing.rows * (healing.context - 1)
    stream: list[int] = []
    for ids in _encoded(tokenizer, _ordered(documents, healing.seed)):
        stream += [bos, *ids]
        if len(stream) >= wanted:
            break
    width = healing.context - 1
    count = min(len(stream), wanted) // width
    if not count:
        raise NotFound(
            f"the text has {len(stream)} tokens, less than one row of {healing.context}: bring more"
        )
    body = np.array(stream[: count * width], dtype=np.int32).reshape(count, width)
    return np.concatenate([np.full((count, 1), bos, dtype=np.int32), body], axis=1)


def _ordered(documents: Sequence[str], seed: int) -> list[str]:
    """The documents by a hash of seed and text."""
    salt = str(seed).encode()
    return sorted(documents, key=lambda text: hashlib.sha256(salt + text.encode()).digest())


def _encoded(tokenizer: Any, texts: Sequence[str]) -> Iterator[list[int]]:
    for start in range(0, len(texts), _AT_ONCE):
        for found in tokenizer.encode_batch(texts[start : start + _AT_ONCE], add_special_tokens=False):
            yield found.ids


def _tokenizer(folder: Path) -> tuple[Any, int]:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise NotFound(f"{folder} has no tokenizer.json, which healing needs")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True  # control tokens in a text are text
    bos = tokenizer.token_to_id("<bos>")
    if bos is None:
        raise NotFound(f"{path} has no <bos>, which every row begins with")
    return tokenizer, bos
