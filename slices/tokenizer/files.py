"""A checkpoint's tokenizer files, read and pruned to a subset of the vocabulary.

The tokenizer is byte-pair encoding with byte fallback (`tokenizer.json`). A token that BPE merges from
smaller ones needs those too: `intermediate_tokens`. A text whose tokens are all kept is then encoded as
before, since BPE applies the same merges in the same order; any other text falls back to smaller tokens.
Which rows are kept is chosen in `slices.cut.vocabulary`.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.errors import BadCheckpoint, NotFound, Unsupported
from slices.files.safetensors_header import parse_json_object
from slices.tokenizer.bpe_stream import read_pieces

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_ID_KEY = re.compile(r".*(_token_id|_token_ids|_token_index)|(begin_)?suppress_tokens|bad_words_ids")
_NO_MERGE = 2**31
COPIED_FILES = ("special_tokens_map.json", "chat_template.jinja", "chat_template.json")


@dataclass(frozen=True)
class BpeTokenizer:
    """A parsed tokenizer.json. `raw` is the whole file, but that its merges may be pairs of ids."""

    raw: Mapping[str, Any]
    vocab: Mapping[str, int]

    @cached_property
    def tokens(self) -> dict[int, str]:
        """Token by id."""
        return {index: token for token, index in self.vocab.items()}

    @cached_property
    def merges(self) -> NDArray[np.int32]:
        """Ids of the two tokens of each merge, in merge order, shape (merges, 2)."""
        stored = self.raw["model"]["merges"]
        if isinstance(stored, np.ndarray):
            return stored
        ids = [(self.vocab[left], self.vocab[right]) for left, right in _pairs(stored)]
        return np.array(ids, dtype=np.int32).reshape(-1, 2)

    @cached_property
    def ranks(self) -> dict[tuple[str, str], int]:
        """Merge priority by pair; the lowest is applied first."""
        tokens = self.tokens
        return {(tokens[a], tokens[b]): rank for rank, (a, b) in enumerate(self.merges.tolist())}

    @cached_property
    def _by_pair(self) -> tuple[memoryview, memoryview]:
        """Both ids of a merge as one ascending number, and the merge's rank: a dict would weigh 100 MB."""
        pairs = self.merges.astype(np.int64) @ np.array([2**32, 1])
        order = np.argsort(pairs, kind="stable")
        return pairs[order].data, order.data

    def rank(self, left: str, right: str) -> int:
        """The order of a merge, `_NO_MERGE` if there is none."""
        a, b = self.vocab.get(left), self.vocab.get(right)
        if a is None or b is None:
            return _NO_MERGE
        pairs, ranks = self._by_pair
        at = bisect_right(pairs, a * 2**32 + b) - 1
        return int(ranks[at]) if at >= 0 and pairs[at] == a * 2**32 + b else _NO_MERGE

    @cached_property
    def added(self) -> dict[int, str]:
        """Added tokens (control tokens, runs of newlines, ...) by id."""
        return {token["id"]: token["content"] for token in self.raw.get("added_tokens", [])}

    @cached_property
    def bytes(self) -> set[int]:
        """Ids of the byte-fallback tokens."""
        return {index for token, index in self.vocab.items() if _BYTE.fullmatch(token)}

    def intermediate_tokens(self, token: str) -> set[str]:
        """All tokens that BPE passes through from single characters to `token`, itself included."""
        symbols = list(token)
        found = {token, *symbols}
        ranks = [self.rank(left, right) for left, right in pairwise(symbols)]
        while (first := min(ranks, default=_NO_MERGE)) < _NO_MERGE:
            at = ranks.index(first)
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
            found.add(symbols[at])
            del ranks[at]
            if at > 0:
                ranks[at - 1] = self.rank(symbols[at - 1], symbols[at])
            if at < len(ranks):
                ranks[at] = self.rank(symbols[at], symbols[at + 1])
        return {symbol for symbol in found if symbol in self.vocab}


def read_bpe(folder: Path) -> BpeTokenizer:
    """Parse `folder/tokenizer.json`.

    Raises:
        NotFound: there is none.
        BadCheckpoint: it is damaged.
        Unsupported: it is not BPE with byte fallback.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise NotFound(f"{folder} has no tokenizer.json, which this step needs")
    raw, vocab, merges = read_pieces(path)
    model = raw["model"]
    if model.get("type") != "BPE" or not model.get("byte_fallback"):
        raise Unsupported(
            f"{path}: expected byte-pair encoding with byte fallback (type BPE, byte_fallback true)"
        )
    if not all(map(_is_added, _list(raw.get("added_tokens", [])))):
        raise BadCheckpoint(f"{path}: 'added_tokens' must list objects with an 'id' and a 'content'")
    return BpeTokenizer(raw | {"model": model | {"vocab": vocab, "merges": merges}}, vocab)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _is_added(token: object) -> bool:
    match token:
        case {"id": int(index), "content": str()}:
            return 0 <= index < 2**31
    return False


@dataclass(frozen=True)
class TokenIdMap:
    """The parent's token ids to the slice's: kept rows in order, then ids past the embedding."""

    kept: NDArray[np.int64]  # ascending row numbers of the parent
    rows: int  # of the parent

    @cached_property
    def _new(self) -> dict[int, int]:
        return {int(old): new for new, old in enumerate(self.kept)}

    def get(self, old: int) -> int | None:
        """The new id, or None if the row is gone."""
        return len(self.kept) + old - self.rows if old >= self.rows else self._new.get(old)

    def __getitem__(self, old: int) -> int:
        """The new id of a token that must be kept."""
        new = self.get(old)
        if new is None:
            raise BadCheckpoint(f"token id {old} is referred to, but its row was cut")
        return new


def cut_tokenizer(bpe: BpeTokenizer, ids: TokenIdMap) -> dict[str, Any]:
    """tokenizer.json with the kept tokens, the merges that stay possible, and every id renumbered."""
    vocab = {token: ids[old] for token, old in bpe.vocab.items() if ids.get(old) is not None}
    stays = np.zeros(max(bpe.vocab.values(), default=0) + 1, bool)
    stays[[bpe.vocab[token] for token in vocab]] = True
    left, right = bpe.merges[stays[bpe.merges].all(axis=1)].T.tolist()
    pairs = ((bpe.tokens[a], bpe.tokens[b]) for a, b in zip(left, right, strict=True))
    merges = [pair for pair in pairs if pair[0] + pair[1] in vocab]
    added = [token | {"id": ids[token["id"]]} for token in bpe.raw.get("added_tokens", [])]
    cut = dict(bpe.raw) | {
        "added_tokens": added,
        "model": bpe.raw["model"] | {"vocab": vocab, "merges": merges},
    }
    if isinstance(cut.get("post_processor"), dict):
        cut["post_processor"] = _remap_template(cut["post_processor"], ids)
    return cut


def remap_token_ids(value: Any, ids: TokenIdMap, key: str = "") -> Any:
    """A config object with every token id in it renumbered, however deep."""
    if isinstance(value, dict):
        return {name: remap_token_ids(item, ids, name) for name, item in value.items()}
    if isinstance(value, list):
        return [remap_token_ids(item, ids, key) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and _ID_KEY.fullmatch(key):
        return ids[value]
    return value


def token_ids(value: Any, key: str = "") -> set[int]:
    """Every token id that a config object or a post-processor refers to, however deep."""
    if isinstance(value, dict):
        return set().union(*(token_ids(item, name) for name, item in value.items()))
    if isinstance(value, list):
        return set().union(*(token_ids(item, key) for item in value))
    named = key == "ids" or _ID_KEY.fullmatch(key)
    return {value} if named and isinstance(value, int) and not isinstance(value, bool) else set()


def tokenizer_files(folder: Path, ids: TokenIdMap | None) -> tuple[dict[str, bytes], list[str]]:
    """The tokenizer files of a slice, and notes on those that are not carried over.

    Args:
        folder: the parent's.
        ids: None carries the files over as they are.
    """
    names = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "added_tokens.json", *COPIED_FILES)
    present = {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
    if ids is None:
        return present, []
    files = {name: present[name] for name in COPIED_FILES if name in present}
    files["tokenizer.json"] = _dump(cut_tokenizer(read_bpe(folder), ids))
    if "tokenizer_config.json" in present:
        config = parse_json_object(present["tokenizer_config.json"], folder / "tokenizer_config.json")
        files["tokenizer_config.json"] = _dump(_remap_decoder(remap_token_ids(config, ids), ids))
    if "added_tokens.json" in present:
        added = parse_json_object(present["added_tokens.json"], folder / "added_tokens.json")
        files["added_tokens.json"] = _dump({token: ids[old] for token, old in added.items()})
    dropped = ["tokenizer.model is not carried over: it describes the full vocabulary"]
    return files, dropped if "tokenizer.model" in present else []


def _remap_decoder(config: dict[str, Any], ids: TokenIdMap) -> dict[str, Any]:
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        config["added_tokens_decoder"] = {str(ids[int(old)]): token for old, token in decoder.items()}
    return config


def _remap_template(processor: Any, ids: TokenIdMap) -> Any:
    """A post-processor whose special tokens carry new ids; other content is left alone."""
    if isinstance(processor, list):
        return [_remap_template(item, ids) for item in processor]
    if not isinstance(processor, dict):
        return processor
    done = {key: _remap_template(value, ids) for key, value in processor.items()}
    if isinstance(done.get("special_tokens"), dict):
        done["special_tokens"] = {
            name: token | {"ids": [ids[old] for old in token["ids"]]}
            for name, token in done["special_tokens"].items()
        }
    return done


def _pairs(merges: Iterable[Any]) -> list[tuple[str, str]]:
    """Merges as pairs; older files write them as one string with a space between."""
    split = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges)
    return [(left, right) for left, right in split]


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
