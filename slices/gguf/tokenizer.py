"""A slice's tokenizer.json as the tokenizer fields of a GGUF.

Gemma 3's BPE becomes llama.cpp's SentencePiece kind ("llama"), which any version reads: it merges the
best-scored token first, so a token's score is minus the rank of the merge that makes it. That gives the
same tokens only where the merges are those of a SentencePiece vocabulary, which is checked. Other merges,
as a cut vocabulary may have, are written out and read by llama.cpp's newer kind, "gemma4".
Nothing here reads weights.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slices.errors import BadCheckpoint, Unsupported
from slices.files.safetensors_header import parse_json_object
from slices.tokenizer.files import BpeTokenizer, read_bpe

if TYPE_CHECKING:
    import gguf

SPACE = "▁"  # what Gemma's normalizer writes for a space
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))


@dataclass(frozen=True)
class GGUFTokenizer:
    """Tokens by id with scores and GGUF token types; `merges` only where scores cannot say it all."""

    tokens: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...]
    special: Mapping[str, int]  # "bos", "eos", "eot", "unk", "pad" -> id
    chat_template: str | None


def read_tokenizer(
    folder: Path, config: Mapping[str, Any], rows: int, writes_merges: bool = False
) -> GGUFTokenizer:
    """The tokenizer of the checkpoint in `folder`, padded to the `rows` of its embedding.

    Args:
        writes_merges: whether to write merges even where scores would do.

    Raises:
        NotFound: there is no tokenizer.json.
        BadCheckpoint: it is damaged, or its ids do not fit the embedding.
        Unsupported: it is no BPE of Gemma's kind, so llama.cpp would cut text otherwise.
    """
    path = folder / "tokenizer.json"
    bpe = read_bpe(folder)
    _check_kind(path, bpe)
    added = _added(path, bpe.raw, rows)
    tokens = _place(path, {**bpe.vocab, **{token["content"]: token["id"] for token in added}}, rows)
    types = _types(tokens, added, str(bpe.raw["model"].get("unk_token")))
    scores = None if writes_merges else sentencepiece_scores(bpe)
    merges = () if scores is not None else tuple(f"{left} {right}" for left, right in bpe.ranks)
    lowest = -float(len(bpe.ranks) + 1)
    return GGUFTokenizer(
        tokens=_texts(path, tokens, types),
        scores=tuple((scores or {}).get(token, lowest) for token in tokens),
        types=types,
        merges=merges,
        special=_special(config, tokens, bpe.raw["model"]),
        chat_template=_template(folder),
    )


def sentencepiece_scores(bpe: BpeTokenizer) -> dict[str, float] | None:
    """A score for every merged token such that best-score-first merging does what the merges do.

    None where there are none: SentencePiece joins any two neighbours that spell a token, so each such
    pair must be a merge, and the merges that make one token must follow one another.
    """
    splits: dict[str, set[int]] = {}
    last = ""
    for left, right in bpe.ranks:
        token = left + right
        if token in splits and token != last:
            return None
        splits.setdefault(token, set()).add(len(left))
        last = token
    made = splits.keys()
    named = {*BYTES, *bpe.added.values()}
    merged = (token for token in bpe.vocab if len(token) > 1 and token not in named)
    if any(_open_splits(token, splits.get(token, set()), made) for token in merged):
        return None
    return {token: -float(rank) for rank, token in enumerate(splits)}


def _open_splits(token: str, known: set[int], made: Iterable[str]) -> bool:
    """Whether `token` can be put together from two symbols in a way that no merge tells of."""
    return any(
        at not in known and (at == 1 or token[:at] in made) and (at == len(token) - 1 or token[at:] in made)
        for at in range(1, len(token))
    )


def write_tokenizer(writer: "gguf.GGUFWriter", tokenizer: GGUFTokenizer) -> None:
    """Add the tokenizer's fields to a GGUF that is being written."""
    writer.add_tokenizer_model("gemma4" if tokenizer.merges else "llama")
    writer.add_tokenizer_pre("gemma4" if tokenizer.merges else "default")
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_scores(tokenizer.scores)
    writer.add_token_types(tokenizer.types)
    if tokenizer.merges:
        writer.add_token_merges(tokenizer.merges)
    for kind, token in tokenizer.special.items():
        getattr(writer, f"add_{kind}_token_id")(token)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _check_kind(path: Path, bpe: BpeTokenizer) -> None:
    normalizer = bpe.raw.get("normalizer") or {}
    replaces = (normalizer.get("type"), normalizer.get("pattern"), normalizer.get("content"))
    splits = bpe.raw.get("pre_tokenizer") or {"pattern": {"String": " "}}
    if replaces != ("Replace", {"String": " "}, SPACE) or splits.get("pattern") != {"String": " "}:
        raise Unsupported(
            f"{path}: expected a normalizer that writes spaces as {SPACE!r} and no other (Gemma's kind), "
            f"found {normalizer.get('type')} and {splits.get('type')}; serve this slice in torch"
        )
    missing = [name for name in BYTES if name not in bpe.vocab]
    if missing:
        raise Unsupported(f"{path}: {len(missing)} of 256 byte tokens are missing, the first is {missing[0]}")


def _added(path: Path, document: Mapping[str, Any], rows: int) -> list[dict[str, Any]]:
    """The added tokens that have a row; Gemma's tokenizers name some (images) that text models lack."""
    added = document.get("added_tokens") or []
    for token in added:
        match token:
            case {"content": str(), "id": int(), "special": bool()}:
                continue
        raise BadCheckpoint(f"{path}: an added token lacks its content, id or special flag: {token!r}")
    return [token for token in added if token["id"] < rows]


def _place(path: Path, vocabulary: Mapping[str, int], rows: int) -> list[str]:
    tokens = [f"[PAD{index}]" for index in range(rows)]
    for token, index in vocabulary.items():
        if not 0 <= index < rows:
            raise BadCheckpoint(f"{path}: token {token!r} has id {index}, but the embedding has {rows} rows")
        if tokens[index] != f"[PAD{index}]":
            raise BadCheckpoint(f"{path}: {token!r} and {tokens[index]!r} share the id {index}")
        tokens[index] = token
    return tokens


def _types(tokens: Sequence[str], added: Sequence[Mapping[str, Any]], unknown: str) -> tuple[int, ...]:
    kinds = dict.fromkeys(BYTES, BYTE)
    kinds |= {token["content"]: CONTROL if token["special"] else USER_DEFINED for token in added}
    kinds[unknown] = UNKNOWN
    unused = {f"[PAD{index}]" for index in range(len(tokens))}
    return tuple(kinds.get(token, UNUSED if token in unused else NORMAL) for token in tokens)


def _texts(path: Path, tokens: Sequence[str], types: Sequence[int]) -> tuple[str, ...]:
    """llama.cpp looks for user-defined tokens in the raw text, before spaces are rewritten."""
    pairs = zip(tokens, types, strict=True)
    texts = tuple(t.replace(SPACE, " ") if kind == USER_DEFINED else t for t, kind in pairs)
    if len(set(texts)) != len(texts) or "" in texts:
        twice = next(text for text in texts if not text or texts.count(text) > 1)
        raise Unsupported(f"{path}: token {twice!r} is empty or occurs twice, which llama.cpp cannot load")
    return texts


def _special(config: Mapping[str, Any], tokens: Sequence[str], model: Mapping[str, Any]) -> dict[str, int]:
    eos = config.get("eos_token_id")
    ends = list(eos) if isinstance(eos, list) else [eos]
    unknown = model.get("unk_token")
    found = {
        "bos": config.get("bos_token_id"),
        "eos": ends[0] if ends else None,
        "eot": ends[1] if len(ends) > 1 else None,
        "unk": tokens.index(unknown) if unknown in tokens else None,
        "pad": config.get("pad_token_id"),
    }
    for kind, token in found.items():
        if token is None and kind in ("bos", "eos"):
            raise BadCheckpoint(f"config.json: expected {kind}_token_id, found none")
        if token is not None and not (isinstance(token, int) and 0 <= token < len(tokens)):
            raise BadCheckpoint(f"config.json: {kind}_token_id {token!r} is outside the {len(tokens)} rows")
    return {kind: token for kind, token in found.items() if token is not None}


def _template(folder: Path) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    path = folder / "tokenizer_config.json"
    template = parse_json_object(path.read_bytes(), path).get("chat_template") if path.is_file() else None
    return template if isinstance(template, str) else None
