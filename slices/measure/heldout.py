"""The text that measures: held-out documents, cut into windows that are the same for every model.

A window is at most 1,800 bytes, cut before whitespace, and scored after a bos; where the stride is smaller
than the window, its first part was scored before and is only context. The cut looks at bytes, never at
tokens, so values compare across vocabularies. Reads text, runs nothing.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slices.errors import BadConfig, NotFound
from slices.measure.paired import MIN_DOCUMENTS
from slices.text.corpus import Corpus, Part, part_of, read_documents

WINDOW_BYTES = 1800
SAMPLE_BYTES = 24_000  # of text by default, where many models are measured: 5,400 tokens
_WHITESPACE = (b" ", b"\n", b"\t", b"\r")


@dataclass(frozen=True)
class Window:
    """A stretch of text, the number of the document it is from, and what is read before it but not scored."""

    document: int
    text: str
    context: str = ""

    @property
    def nbytes(self) -> int:
        """UTF-8 bytes that are scored."""
        return len(self.text.encode())


@dataclass(frozen=True)
class Heldout:
    """One domain's windows. `sha256` is of their text, in order."""

    windows: tuple[Window, ...]
    sha256: str

    @property
    def nbytes(self) -> int:
        """UTF-8 bytes of all windows."""
        return sum(window.nbytes for window in self.windows)

    @property
    def documents(self) -> int:
        """How many documents have a window here."""
        return len({window.document for window in self.windows})


def read_verdict(data: Path, domains: Sequence[str] = ()) -> dict[str, list[str]]:
    """Documents of `data/corpora/<domain>/heldout.jsonl` by domain; all domains there, if none is named.

    Raises:
        NotFound: a domain has no such file, or the file no text.
        BadConfig: a line is not as expected; file and line are named.
    """
    known = sorted(path.parent.name for path in data.glob("corpora/*/heldout.jsonl"))
    missing = [domain for domain in domains if domain not in known]
    if missing or not known:
        wanted = f"corpora/{missing[0] if missing else '<domain>'}/heldout.jsonl"
        raise NotFound(f"{data} holds no {wanted}; its domains: {', '.join(known) or '(none)'}")
    return {domain: _documents(data / "corpora" / domain / "heldout.jsonl") for domain in domains or known}


def read_selection(data: Path, domain: str) -> Corpus:
    """The selection part of `data/corpora/<domain>/calibration.jsonl`, without documents of `read_verdict`.

    Raises:
        NotFound: there is no such file, or none of its text is of that part.
        BadConfig: a line is not as expected; file and line are named.
    """
    return _read_part(data, domain, Part.SELECTION)


def read_calibration(data: Path, domain: str) -> Corpus:
    """The calibration part of the same file, likewise.

    Raises:
        NotFound, BadConfig: as `read_selection`.
    """
    return _read_part(data, domain, Part.CALIBRATION)


def _read_part(data: Path, domain: str, part: Part) -> Corpus:
    path = data / "corpora" / domain / "calibration.jsonl"
    if not path.is_file():
        raise NotFound(
            f"{data} holds no corpora/{domain}/calibration.jsonl, of which one document in ten is used to "
            "choose by measurement; what is chosen on heldout.jsonl could not be judged on it"
        )
    found = without_verdict(Corpus("files", tuple(_documents(path)), (path.absolute(),)))
    found = replace(found, documents=tuple(text for text in found.documents if part_of(text) == part))
    if not found.documents:
        share = "one in ten" if part == Part.SELECTION else "eight in ten"
        raise NotFound(
            f"{path}: none of its documents falls into the {part.value} part, {share} by their hash"
        )
    return found


def without_verdict(corpus: Corpus) -> Corpus:
    """The corpus without what the `heldout.jsonl` beside each of its files holds too."""
    beside = [file.with_name("heldout.jsonl") for file in corpus.files]
    reported = {text for file in beside if file.is_file() for text in read_documents(file)}
    return replace(corpus, documents=tuple(text for text in corpus.documents if text not in reported))


def cut_heldout(
    documents: Sequence[str], limit: int | None = None, size: int = WINDOW_BYTES, stride: int | None = None
) -> Heldout:
    """The windows of `documents`, or a sample of them of at most `limit` bytes (but at least one a piece
    of two documents), of eight documents where they fit. The sample is fixed by the text itself, so it is the
    same on every machine.

    Args:
        size: most bytes of a window, context included.
        stride: most bytes of a window that are scored; by default all.

    Raises:
        BadConfig: there are fewer than two documents with text; one alone has no standard error. Or the
            stride is not between 1 and the window.
    """
    stride = size if stride is None else stride
    if not 1 <= stride <= size:
        raise BadConfig(f"a stride of {stride} bytes: expected 1 to {size}, the window's")
    windows = [
        Window(number, text, context)
        for number, document in enumerate(documents)
        for text, context in strides(document, size, stride)
    ]
    if limit is not None:
        windows = _sample(windows, limit)
    windows = _renumbered(windows)
    if len({window.document for window in windows}) < 2:
        raise BadConfig("measuring needs at least two documents with text: one alone has no standard error")
    digest = hashlib.sha256()
    for window in windows:
        digest.update(_digest(window.context + window.text))
        if window.context:
            digest.update(len(window.context).to_bytes(8, "little"))
    return Heldout(tuple(windows), digest.hexdigest())


def _renumbered(windows: list[Window]) -> list[Window]:
    """Documents numbered from 0 by their first window, so that the windows' digest fixes the numbers."""
    numbers: dict[int, int] = {}
    return [replace(window, document=numbers.setdefault(window.document, len(numbers))) for window in windows]


def cut_all(
    texts: Mapping[str, Sequence[str]],
    limit: int | None = None,
    size: int = WINDOW_BYTES,
    stride: int | None = None,
) -> dict[str, Heldout]:
    """`cut_heldout` for each domain; an error names the domain."""
    found = {}
    for domain, documents in texts.items():
        try:
            found[domain] = cut_heldout(documents, limit, size, stride)
        except BadConfig as error:
            raise BadConfig(f"domain {domain!r}: {error}") from None
    return found


def strides(text: str, size: int, stride: int) -> Iterator[tuple[str, str]]:
    """Parts of at most `stride` bytes, each with at most `size - stride` bytes of what came before it."""
    before = ""
    for part in cut(text, stride):
        yield part, before
        before = _end_of(before + part, size - stride)


def cut(text: str, size: int = WINDOW_BYTES) -> Iterator[str]:
    """Consecutive parts of `text`, each of 1 to `size` bytes; joined, they are `text` again."""
    raw = text.encode()
    start = 0
    while start < len(raw):
        end = _end(raw, start, size)
        yield raw[start:end].decode()
        start = end


def _end(raw: bytes, start: int, size: int) -> int:
    """Before the last whitespace that fits, so that a word keeps the space before it; else inside a word."""
    end = start + size
    if end >= len(raw):
        return len(raw)
    at = max(raw.rfind(space, start + 1, end + 1) for space in _WHITESPACE)
    if at > start:
        return at
    while raw[end] & 0xC0 == 0x80:  # the middle of a character
        end -= 1
    return end


def _end_of(text: str, size: int) -> str:
    """The last `size` bytes, from the first whitespace among them where there is one."""
    raw = text.encode()
    if len(raw) <= size:
        return text
    kept = raw[len(raw) - size :].decode(errors="ignore")
    at = min((found for space in " \n\t\r" if (found := kept.find(space)) >= 0), default=0)
    return kept[at:]


def _sample(windows: list[Window], limit: int) -> list[Window]:
    """Windows in the order of their hash while they fit: first one of each of eight documents, then any; and
    as many as two documents take."""
    ordered = sorted(windows, key=_rank)
    firsts = {window.document: window for window in reversed(ordered)}
    covering = sorted(firsts.values(), key=_rank)[:MIN_DOCUMENTS]
    used, seen, found = 0, set[int](), list[Window]()
    rest = [window for window in ordered if not any(window is each for each in covering)]
    for window in [*covering, *rest]:
        if used + window.nbytes <= limit or (len(seen) < 2 and window.document not in seen):
            used += window.nbytes
            seen.add(window.document)
            found.append(window)
    return sorted(found, key=_rank)


def _rank(window: Window) -> tuple[bytes, int]:
    """The place of a window in the order that is fixed by the text."""
    return _digest(window.text), window.document


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _documents(path: Path) -> list[str]:
    found = [text for text in read_documents(path) if text]
    if not found:
        raise NotFound(f"{path} holds no text")
    return found
