"""The text of the experiments: held-out documents that measure, calibration documents that choose."""

import hashlib
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from slices.measure.heldout import Heldout, Window, cut_heldout, read_verdict
from slices.text.corpus import read_documents


def held_text(data: Path, domains: Sequence[str], limit: int) -> Heldout:
    """At most `limit` bytes, as much of each domain, as one text; its documents are numbered through."""
    windows: list[Window] = []
    digest = hashlib.sha256()
    for documents in read_verdict(data, domains).values():
        first = 1 + max((window.document for window in windows), default=-1)
        cut = cut_heldout(documents, limit // len(domains))
        windows += [Window(first + window.document, window.text) for window in cut.windows]
        digest.update(cut.sha256.encode())
    return Heldout(tuple(windows), digest.hexdigest())


def calibration(data: Path, domains: Sequence[str]) -> list[str]:
    """All calibration documents, one of each domain in turn."""
    texts = [list(read_documents(data / "corpora" / each / "calibration.jsonl")) for each in domains]
    turns = zip_longest(*texts, fillvalue="")
    return [document for turn in turns for document in turn if document.strip()]
