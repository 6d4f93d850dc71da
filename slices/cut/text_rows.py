"""The vocabulary rows that a domain's text calls for: its tokens counted, the rows beyond it ranked."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from slices.architecture.anatomy import Anatomy
from slices.architecture.constraints import special_ids
from slices.checkpoint import Checkpoint, read_optional_json
from slices.cut.vocabulary import choose_rows
from slices.progress import Progress, no_progress
from slices.text.corpus import Corpus
from slices.text.expected_counts import expected_counts
from slices.text.synthetic import find_gguf
from slices.text.token_counts import count_tokens
from slices.tokenizer.files import BpeTokenizer, read_bpe, token_ids


def rows_for_text(
    spec: str,
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    text: Corpus | None,
    progress: Progress = no_progress,
) -> NDArray[np.int64] | None:
    """The rows that `--vocab SPEC` keeps, ascending, shape (kept,); None keeps them all.

    Where the text is the parent's own, and therefore short, the parent ranks the rows beyond it.

    Args:
        spec: all | domain | N.
        text: None where only the number of rows matters.

    Raises:
        InvalidCut, SliceError: as `choose_rows` and `read_bpe`.
    """
    if spec == "all":
        return None
    bpe = read_bpe(checkpoint.folder)
    counts = count_tokens(bpe, text) if text else Counter[int]()
    rank = None
    if text is not None and text.source == "parent" and spec != "domain":
        rank = expected_counts(checkpoint, find_gguf(checkpoint.folder), text, progress)
    config_ids = _config_ids(checkpoint, anatomy, bpe)
    return choose_rows(spec, bpe, counts, rows=anatomy.dims.vocab, config_ids=config_ids, rank=rank)


def _config_ids(checkpoint: Checkpoint, anatomy: Anatomy, bpe: BpeTokenizer) -> set[int]:
    """Token ids that config.json, generation_config.json or the tokenizer's post-processor refer to."""
    generation = read_optional_json(checkpoint.folder / "generation_config.json")
    return special_ids(anatomy) | token_ids(generation) | token_ids(bpe.raw.get("post_processor"))
