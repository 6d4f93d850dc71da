"""Which token of a parent each row of a vocabulary-cut slice stands for, and how the slice spells the others.

A lost token (one that the cut removed) has a first piece: the first of the tokens by which the slice's own
tokenizer spells it. Where the parent says " harbour", a slice without that token has to say " har" first.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.architecture.anatomy import read_anatomy
from slices.checkpoint import open_checkpoint
from slices.errors import BadCheckpoint, NotFound
from slices.tokenizer.bpe_stream import read_pieces

_SPACE = "▁"  # how the vocabulary writes a space
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class TokenMap:
    """The tokens of a slice and of its parent, each by the other's ids.

    Attributes:
        ids: the parent's id of each of the slice's rows, (slice vocabulary,); -1 for a row without a token.
        first_pieces: the slice's id of the first piece of each of the parent's rows, (parent vocabulary,). A
            token that was kept is its own first piece. -1 where there is none: a row without a token, and a
            lost token that has no text (a control token, a byte) or whose text the slice reads as `<unk>`.
    """

    ids: NDArray[np.int64]
    first_pieces: NDArray[np.int64]

    @property
    def spelled(self) -> NDArray[np.int64]:
        """The parent's ids of the lost tokens that have a first piece, ascending."""
        lost = self.first_pieces >= 0
        lost[self.ids[self.ids >= 0]] = False
        return np.flatnonzero(lost)


def token_map(slice_folder: Path, parent_folder: Path) -> TokenMap:
    """Map a slice's vocabulary to its parent's and back.

    Raises:
        NotFound: a folder has no tokenizer.json.
        BadCheckpoint: the slice has a token that the parent lacks, or two rows with the same one.
    """
    (ours, _), (theirs, control) = _tokens(slice_folder), _tokens(parent_folder)
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
    pieces = np.full(known, -1, dtype=np.int64)
    pieces[ids[ids >= 0]] = np.flatnonzero(ids >= 0)
    lost = {token: index for token, index in theirs.items() if token not in ours and index < known}
    texts = [token for token in lost if token not in control and not _BYTE.fullmatch(token)]
    pieces[[lost[token] for token in texts]] = _first_pieces(slice_folder, texts)
    return TokenMap(ids, pieces)


def count_rows(folder: Path) -> int:
    """Rows of a checkpoint's vocabulary."""
    return read_anatomy(open_checkpoint(folder).config).dims.vocab


def _first_pieces(folder: Path, tokens: list[str]) -> list[int]:
    """The first id by which the slice's tokenizer spells each token's text; -1 for `<unk>`."""
    from tokenizers import Tokenizer

    if not tokens:
        return []
    tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    unknown = tokenizer.token_to_id("<unk>")
    texts = [token.replace(_SPACE, " ") for token in tokens]
    first = [each.ids[:1] for each in tokenizer.encode_batch(texts, add_special_tokens=False)]
    return [ids[0] if ids and ids[0] != unknown else -1 for ids in first]


def _tokens(folder: Path) -> tuple[dict[str, int], set[str]]:
    """Ids by token, and which of the tokens are control tokens."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise NotFound(f"{folder} has no tokenizer.json, which says what its rows stand for")
    rest, vocab, _ = read_pieces(path)
    added = rest.get("added_tokens", [])
    control = {token["content"] for token in added if token.get("special")}
    return vocab | {token["content"]: token["id"] for token in added}, control
