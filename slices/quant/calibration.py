"""Which tokens of a domain's text a slice is shown when something is measured on it: short, many, spread.

Only picks; what is measured on them is in `slices.quant.imatrix`. That no held-out text is among the
documents is the caller's to see to (`Corpus.calibration`).
"""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from slices.errors import BadConfig, NotFound

TOKENS = 32_768  # read, at least, where the text has as many
CONTEXT = 512  # tokens that the model sees at once, as llama-imatrix has it


def token_batches(
    folder: Path, documents: Sequence[str], tokens: int = TOKENS, context: int = CONTEXT
) -> list[list[int]]:
    """Token ids of stretches of the documents, each after a bos, at most `context` long.

    Documents take turns, a stretch each, in the order of their hashes and each from a place that its hash
    says, so that few tokens sample a big corpus evenly and always alike.

    Raises:
        NotFound: there is no tokenizer.json, or the text has no token.
        BadConfig: the context has no room for a token.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise NotFound(f"{folder} has no tokenizer.json, which reading a text needs")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True  # control tokens in a text are text
    bos = tokenizer.token_to_id("<bos>")
    first = [] if bos is None else [bos]
    if context <= len(first):
        raise BadConfig(f"expected a context of at least {len(first) + 1} tokens, found {context}")
    ordered = sorted((hashlib.sha256(text.encode()).digest(), text) for text in documents)
    waiting = deque(_stretches(tokenizer, text, context - len(first), key[0]) for key, text in ordered)
    found: list[list[int]] = []
    missing = tokens
    while waiting and missing > 0:
        stretch = next(waiting[0], None)
        if stretch is None:
            waiting.popleft()
            continue
        waiting.rotate(-1)
        found.append([*first, *stretch])
        missing -= len(found[-1])
    if not found:
        raise NotFound("the text has no token to measure on; give more text")
    return found


def _stretches(tokenizer: Any, text: str, length: int, start: int) -> Iterator[list[int]]:
    """All stretches of `length` tokens of a text, beginning with one that `start` picks, then round."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    cuts = range(0, len(ids), length)
    for turn in range(len(cuts)):
        at = cuts[(start + turn) % len(cuts)]
        yield ids[at : at + length]
