"""Which token of a parent each row of a vocabulary-cut slice stands for, by the tokens' spelling."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from slices.architecture.anatomy import read_anatomy
from slices.checkpoint import open_checkpoint
from slices.errors import BadCheckpoint, NotFound
from slices.tokenizer.bpe_stream import read_pieces


def token_map(slice_folder: Path, parent_folder: Path) -> NDArray[np.int64]:
    """The parent's id of each of the slice's ids, shape (slice vocabulary,); -1 for a row without a token.

    Raises:
        NotFound: a folder has no tokenizer.json.
        BadCheckpoint: the slice has a token that the parent lacks, or two rows with the same one.
    """
    ours, theirs = _tokens(slice_folder), _tokens(parent_folder)
    rows, known = count_rows(slice_folder), count_rows(parent_folder)
    ids = np.full(rows, -1, dtype=np.int64)
    for token, index in ours.items():
        if not theirs.get(token, known) < known:
            raise BadCheckpoint(f"{slice_folder}: {parent_folder} has no token {token!r}, so it is no parent")
        if index >= rows or ids[index] >= 0:
            raise BadCheckpoint(
                f"{slice_folder}/tokenizer.json: the id {index} of {token!r} stands for another token too, "
                f"or is not among the {rows} rows"
            )
        ids[index] = theirs[token]
    return ids


def count_rows(folder: Path) -> int:
    """Rows of a checkpoint's vocabulary."""
    return read_anatomy(open_checkpoint(folder).config).dims.vocab


def _tokens(folder: Path) -> dict[str, int]:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise NotFound(f"{folder} has no tokenizer.json, which says what its rows stand for")
    rest, vocab, _ = read_pieces(path)
    return vocab | {token["content"]: token["id"] for token in rest.get("added_tokens", [])}
