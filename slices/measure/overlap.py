"""Whether verdict text is new: runs of 13 words that the text holds too which a slice was made from.

The 13-gram test is that of GPT-3's report (Brown et al. 2020, appendix C). A single shared run says little
in a long document: statutes and textbooks repeat themselves. So a document counts as seen where more than a
tenth of its runs are, and a seen document does not measure. Words are runs of letters and digits, lower case.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from slices.errors import BadConfig

RUN = 13  # words
SEEN = 0.1  # share of a document's runs from which it counts as seen
MAX_SEEN = 0.5  # share of a domain's documents: with more seen ones the text is not held out
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Overlap:
    """Held-out documents against calibration text. `touched` documents share a run at least, `seen` ones more
    than `SEEN` of their runs; `share` is of all runs of all documents. `unchecked` names calibration text
    that is gone or has changed, so that nothing is known of it.
    """

    documents: int
    touched: int
    seen: int
    share: float
    unchecked: tuple[str, ...] = ()


def overlap(heldout: Sequence[str], calibration: Sequence[str]) -> tuple[list[str], Overlap]:
    """The documents of `heldout` that are not seen, and how much they all share with `calibration`."""
    heldout_runs = [list(runs(document)) for document in heldout]
    wanted = {run for found in heldout_runs for run in found}
    known = {run for document in calibration for run in runs(document) if run in wanted}
    fresh, touched, shared, total = [], 0, 0, 0
    for document, found in zip(heldout, heldout_runs, strict=True):
        hits = sum(run in known for run in found)
        touched += hits > 0
        shared, total = shared + hits, total + len(found)
        if hits <= SEEN * len(found):
            fresh.append(document)
    share = shared / total if total else 0.0
    return fresh, Overlap(
        documents=len(heldout), touched=touched, seen=len(heldout) - len(fresh), share=share
    )


def without_seen(
    texts: Mapping[str, Sequence[str]], calibration: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[str]], dict[str, Overlap]]:
    """`overlap` by domain, against the calibration text of all: slices are compared across domains.

    Raises:
        BadConfig: more than half of a domain's documents are seen, or fewer than two are left; it and the
            counts are named.
    """
    known = [document for documents in calibration.values() for document in documents]
    fresh, found = {}, {}
    for domain, documents in texts.items():
        fresh[domain], found[domain] = overlap(documents, known)
        seen = found[domain].seen
        if len(fresh[domain]) < 2 <= len(documents) or seen > MAX_SEEN * len(documents):
            raise BadConfig(
                f"the text of {domain!r} is not held out: {seen} of its {len(documents)} documents share "
                f"more than {SEEN:.0%} of their runs of {RUN} words with text that the slices were made from"
            )
    return fresh, found


def runs(document: str) -> Iterator[int]:
    """A number for every run of `RUN` words, in order; of a shorter document, one for all of it."""
    words = [word.lower() for word in _WORD.findall(document)]
    for at in range(max(1, len(words) - RUN + 1) if words else 0):
        yield hash(tuple(words[at : at + RUN]))
