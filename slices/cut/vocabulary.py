"""Which vocabulary rows are kept: tokens of the text, those that BPE merges them from, others by rank.

Always kept: added tokens, byte tokens, every id that a config refers to, printable ASCII characters. Then
tokens by their frequency in the text, each with its intermediate tokens, up to the size. The remaining rows
go by a measured rank (`slices.text.expected_counts`), else to the most general tokens: first those spelled
only with characters of the text, and among them the lowest id, since BPE numbers its tokens in the order of
their frequency in the tokenizer's training text.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from slices.errors import InvalidCut
from slices.tokenizer.files import BpeTokenizer

_ASCII = [chr(code) for code in range(33, 127)]


def choose_rows(
    spec: str,
    bpe: BpeTokenizer,
    counts: Counter[int],
    rows: int,
    config_ids: Iterable[int],
    rank: NDArray[np.floating] | None = None,
) -> NDArray[np.int64] | None:
    """Ascending parent ids of the rows to keep, shape (kept,); None keeps them all.

    Args:
        spec: all | domain | N, where N counts the rows of the result.
        counts: how often each id occurs in the domain's text.
        rows: rows of the parent's embedding.
        config_ids: ids that some config refers to.
        rank: score of each id on the domain, shape (ids,), for rows that the text does not fill.

    Raises:
        InvalidCut: N is no number, above `rows`, or below what must always stay.
    """
    if spec == "all":
        return None
    size = None if spec == "domain" else _parse(spec, rows)
    kept = {i for i in required_ids(bpe, config_ids) if i < rows}
    if size is not None and size < len(kept):
        raise InvalidCut(
            f"--vocab {size}: {len(kept)} rows must stay (added, byte, ASCII tokens): ask for no fewer"
        )
    _grow(kept, (i for i, _ in counts.most_common()), bpe, rows, size)
    if size is not None:
        order = (
            by_generality(bpe, counts) if rank is None else iter(np.argsort(-rank, kind="stable").tolist())
        )
        _grow(kept, order, bpe, rows, size)
        _top_up(kept, rows, size)
    return np.array(sorted(kept), dtype=np.int64)


def required_ids(bpe: BpeTokenizer, config_ids: Iterable[int]) -> set[int]:
    """Token ids that no cut may drop."""
    unknown = bpe.raw["model"].get("unk_token")
    single = [token for token in [*_ASCII, "▁", "\n", "\t", unknown] if token in bpe.vocab]
    return {*bpe.added, *bpe.bytes, *config_ids, *(bpe.vocab[token] for token in single)}


def by_generality(bpe: BpeTokenizer, counts: Counter[int]) -> Iterator[int]:
    """All ids, the most general token first: spelled in the text's own characters, then the lowest id."""
    alphabet = {char for i in counts if i in bpe.tokens for char in bpe.tokens[i]}
    return iter(sorted(bpe.tokens, key=lambda i: (not alphabet.issuperset(bpe.tokens[i]), i)))


def _parse(spec: str, rows: int) -> int:
    if not spec.isascii() or not spec.isdigit():
        raise InvalidCut(f"--vocab {spec}: expected all, domain or a number of rows")
    if int(spec) > rows:
        raise InvalidCut(f"--vocab {spec}: the parent has only {rows} rows")
    return int(spec)


def _grow(kept: set[int], order: Iterable[int], bpe: BpeTokenizer, rows: int, size: int | None) -> None:
    """Add ids in order, each with what BPE builds it from, as far as they fit into `size`."""
    for index in order:
        if index in kept or index >= rows or index not in bpe.tokens:
            continue
        if size is not None and len(kept) == size:
            return
        needed = {bpe.vocab[token] for token in bpe.intermediate_tokens(bpe.tokens[index])} - kept
        if size is None or len(kept) + len(needed) <= size:
            kept |= {i for i in needed if i < rows}


def _top_up(kept: set[int], rows: int, size: int) -> None:
    """Fill the last rows by id, where no token fits with its intermediate tokens or there are too few."""
    for index in range(rows):
        if len(kept) == size:
            return
        kept.add(index)
