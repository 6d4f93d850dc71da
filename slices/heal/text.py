"""The domain's text in the slice's token ids: training rows, and windows of held-out text for evaluation.

Rows are of calibration text. The windows of selection text choose the checkpoint and decide whether it is
written; those of verdict text measure what is reported.

A row is a bos and the next `row_tokens` - 1 tokens of a stream of documents, each of which begins with a bos.
Documents are ordered by hash, so a run reads the same rows on every machine. Runs no model.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.errors import BadConfig, NotFound
from slices.heal.settings import HealConfig
from slices.measure.heldout import Heldout, cut_heldout
from slices.text.corpus import Corpus, Part, part_of

HELDOUT_BYTES = 16_000
_DOCUMENTS_PER_BATCH = 64  # tokenized together


@dataclass(frozen=True)
class HealText:
    """Training rows, and held-out windows that begin with a bos, in the slice's token ids.

    `windows` are those of `selection`, then those of `verdict`.
    """

    rows: NDArray[np.int32]  # (rows, row_tokens)
    windows: tuple[NDArray[np.int32], ...]
    selection: Heldout
    verdict: Heldout
    seed: int

    def heldout(self, part: Part) -> tuple[Heldout, range]:
        """The text of a held-out part, and the indices of its windows."""
        count = len(self.selection.windows)
        if part == Part.SELECTION:
            return self.selection, range(count)
        return self.verdict, range(count, len(self.windows))

    @property
    def sha256(self) -> str:
        """Identity of all rows and windows."""
        digest = hashlib.sha256(str(self.rows.shape).encode() + self.rows.tobytes())
        for window in self.windows:
            digest.update(len(window).to_bytes(8, "little") + window.tobytes())
        return digest.hexdigest()

    def row_indices(self, step: int, count: int) -> NDArray[np.int64]:
        """The rows that a step of `count` rows reads; every epoch is shuffled anew."""
        positions = np.arange(step * count, (step + 1) * count)
        total = len(self.rows)
        orders = {epoch: self._order(epoch) for epoch in set((positions // total).tolist())}
        return np.array([orders[at // total][at % total] for at in positions.tolist()], dtype=np.int64)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.rows))


def read_text(
    folder: Path, corpus: Corpus, config: HealConfig, heldout_bytes: int = HELDOUT_BYTES
) -> HealText:
    """Tokenize as much of a domain's training text as the steps read, and samples of its held-out parts.

    Raises:
        NotFound: the slice has no tokenizer.json or no bos, or the training text is less than a row.
        BadConfig: a held-out part has fewer than two documents, or none is left to train on.
    """
    tokenizer, bos = _tokenizer(folder)
    rows = _rows(tokenizer, bos, _training_documents(corpus), config)
    selection, verdict = (_windows(corpus, part, heldout_bytes) for part in (Part.SELECTION, Part.VERDICT))
    texts = [window.text for heldout in (selection, verdict) for window in heldout.windows]
    windows = [np.array([bos, *ids], dtype=np.int32) for ids in _encode(tokenizer, texts)]
    return HealText(rows=rows, windows=tuple(windows), selection=selection, verdict=verdict, seed=config.seed)


def _training_documents(corpus: Corpus) -> list[str]:
    """The calibration documents.

    Raises:
        BadConfig: the held-out parts leave no document to train on.
    """
    training = [text for text in corpus.documents if part_of(text) == Part.CALIBRATION]
    if not training:
        count = len(corpus.documents)
        taken = "the only document" if count == 1 else f"all {count} documents"
        raise BadConfig(
            f"the held-out split (two documents in ten) took {taken} of the text and leaves none to train "
            "on: healing needs at least two documents, not all of them held out; bring more, or a longer "
            "corpus, with --corpus"
        )
    return training


def _windows(corpus: Corpus, part: Part, max_bytes: int) -> Heldout:
    documents = corpus.part(part).documents
    try:
        return cut_heldout(documents, max_bytes)
    except BadConfig:
        raise BadConfig(
            f"the text has {len(documents)} {part} documents (one in ten, by a hash of their content), and "
            "healing is measured on at least two; bring more text with --corpus"
        ) from None


def _rows(tokenizer: Any, bos: int, documents: Sequence[str], config: HealConfig) -> NDArray[np.int32]:
    width = config.row_tokens - 1
    max_tokens = config.steps * config.rows_per_step * width
    stream: list[int] = []
    for ids in _encode(tokenizer, _hash_order(documents, config.seed)):
        stream += [bos, *ids]
        if len(stream) >= max_tokens:
            break
    count = min(len(stream), max_tokens) // width
    if not count:
        raise NotFound(
            f"the training text has {len(stream)} tokens, less than one row of {config.row_tokens} "
            "(--row-tokens); bring more text with --corpus, or take a smaller --row-tokens"
        )
    body = np.array(stream[: count * width], dtype=np.int32).reshape(count, width)
    return np.concatenate([np.full((count, 1), bos, dtype=np.int32), body], axis=1)


def _hash_order(documents: Sequence[str], seed: int) -> list[str]:
    """The documents sorted by a hash of seed and text."""
    salt = str(seed).encode()
    return sorted(documents, key=lambda text: hashlib.sha256(salt + text.encode()).digest())


def _encode(tokenizer: Any, texts: Sequence[str]) -> Iterator[list[int]]:
    for start in range(0, len(texts), _DOCUMENTS_PER_BATCH):
        batch = texts[start : start + _DOCUMENTS_PER_BATCH]
        for encoding in tokenizer.encode_batch(batch, add_special_tokens=False):
            yield encoding.ids


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
