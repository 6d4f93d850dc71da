"""What a slice is worth: bits per byte of held-out text, with its error, for the bf16 form and every GGUF.

All forms go through `Runtime.logprobs`, on the same windows, so what was measured is what is served.
Bits per byte: the bits the model needs for the text over the bytes of the text. A model of a smaller
vocabulary needs more tokens, and pays for them here. Choosing the text is in `slices.measure.heldout`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices import manifest
from slices.checkpoint import weight_files
from slices.errors import BadConfig, NotFound, RunFailed
from slices.measure.heldout import Heldout, cut_all
from slices.runtime import Runtime, Sampling
from slices.runtimes.open import open_runtime

SCHEMA = 1
METRIC = "bits_per_byte"
Values = NDArray[np.float64]
Progress = Callable[[str, int, int], None]  # what is scored, windows done, windows in all
_SPEED_TOKENS = 32


@dataclass(frozen=True)
class Subject:
    """Something to measure: the checkpoint in `folder`, or its GGUF `file`."""

    name: str
    folder: Path
    file: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of weights on disk."""
        files = [self.folder / self.file] if self.file else weight_files(self.folder)
        return sum(file.stat().st_size for file in files)


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error."""

    value: float
    stderr: float


@dataclass(frozen=True)
class DomainResult:
    """One subject on one domain. `against`: its bits per byte less the reference's, document by document."""

    bits_per_byte: Estimate
    against: Estimate | None
    documents: int
    bytes: int
    tokens: int


@dataclass(frozen=True)
class Row:
    """One subject. Speeds in tokens a second: writing one by one (0.0 if it wrote none), and scoring."""

    bytes: int
    tokens_per_second: float
    scored_tokens_per_second: float
    domains: dict[str, DomainResult]


@dataclass(frozen=True)
class Report:
    """All that one run measured. `data` is the sha256 of each domain's windows."""

    slices: dict[str, Row]
    data: dict[str, str]
    against: str | None

    def to_json(self) -> dict[str, Any]:
        """As the JSON object that `mom eval --json` writes."""
        return {"schema": SCHEMA, **asdict(self)}


def subjects(path: Path) -> list[Subject]:
    """What there is to measure at `path`: a slice's checkpoint and its GGUFs, a plain checkpoint, or a GGUF.

    Raises:
        NotFound: nothing there can be run.
    """
    if path.is_file():
        return [Subject(path.stem, path.parent, path.name)]
    recorded = manifest.read(path) if (path / manifest.FILE).is_file() else None
    name = recorded.name if recorded else path.resolve().name
    found = [Subject(name, path)] if weight_files(path) else []
    found += [
        Subject(Path(each.file).stem, path, each.file) for each in (recorded.quantized if recorded else [])
    ]
    if not found:
        raise NotFound(f"{path} holds neither weights nor a GGUF to measure")
    return found


def evaluate(
    measured: Sequence[Subject],
    texts: Mapping[str, Sequence[str]],
    limit: int | None = None,
    against: Subject | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    opener: Callable[[Subject, int | None], Runtime] | None = None,
) -> Report:
    """Score every subject on every domain's documents.

    Args:
        texts: held-out documents by domain.
        limit: bytes of text a domain, as a fixed sample; None is all of it.
        against: the reference that differences are taken to; it gets a row too.
        opener: how to load a subject, for tests.

    Raises:
        BadConfig: two subjects share a name, or a domain has fewer than two documents.
        NotFound, BadCheckpoint, MissingExtra, RunFailed: a subject cannot be run.
    """
    order = [*([against] if against else []), *(s for s in measured if s != against)]
    names = [subject.name for subject in order]
    if len(set(names)) < len(names):
        raise BadConfig(f"two of the slices to measure share a name: {', '.join(sorted(names))}")
    held = cut_all(texts, limit)
    reference: dict[str, Values] | None = None
    rows: dict[str, Row] = {}
    for subject in order:
        runtime = (opener or _open)(subject, threads)
        try:
            rows[subject.name], bits = _measure(subject, runtime, held, reference, progress)
        finally:
            runtime.close()
        reference = bits if subject == against else reference
    return Report(
        rows, {domain: text.sha256 for domain, text in held.items()}, against.name if against else None
    )


def record(subject: Subject, report: Report) -> None:
    """Write the subject's values into its slice.json, if it has one, over older ones of the same text."""
    if not (subject.folder / manifest.FILE).is_file():
        return
    slice_ = manifest.read(subject.folder)
    of = subject.file or "bf16"
    new = [
        manifest.Measurement(
            of=of, domain=domain, metric=METRIC, data=report.data[domain],
            value=result.bits_per_byte.value, stderr=result.bits_per_byte.stderr,
        )
        for domain, result in report.slices[subject.name].domains.items()
    ]  # fmt: skip
    replaced = {(each.of, each.domain, each.metric, each.data) for each in new}
    kept = [m for m in slice_.measurements if (m.of, m.domain, m.metric, m.data) not in replaced]
    manifest.write(subject.folder, slice_.model_copy(update={"measurements": [*kept, *new]}))


def ratio(numerators: Values, denominators: Values) -> Estimate:
    """Sum over sum, and the standard error of that ratio. Shapes (documents,), at least two."""
    count, total = len(numerators), float(denominators.sum())
    value = float(numerators.sum()) / total
    spread = float(((numerators - value * denominators) ** 2).sum())
    return Estimate(value, math.sqrt(count / (count - 1) * spread) / total)


def score(
    runtime: Runtime, text: Heldout, label: str, progress: Progress | None = None
) -> tuple[Values, Values, int]:
    """Bits and bytes of each document, shapes (documents,), and the number of tokens scored.

    Raises:
        RunFailed: the runtime gives no finite probability to a token; `label` is in the message.
    """
    place = {number: index for index, number in enumerate(sorted({w.document for w in text.windows}))}
    bits, sizes, tokens = np.zeros(len(place)), np.zeros(len(place)), 0
    for done, window in enumerate(text.windows, start=1):
        ids = runtime.encode(window.text)
        if len(ids) < 2:
            raise RunFailed(
                f"{label}: {window.nbytes} bytes of text gave {len(ids)} tokens; expected bos and one more"
            )
        logprobs = runtime.logprobs(ids)
        if len(logprobs) != len(ids) - 1 or not np.isfinite(logprobs).all():
            raise RunFailed(f"{label}: the model gave no finite probability to every token of a window")
        bits[place[window.document]] -= float(logprobs.sum()) / math.log(2)
        sizes[place[window.document]] += window.nbytes
        tokens += len(logprobs)
        if progress:
            progress(label, done, len(text.windows))
    return bits, sizes, tokens


def _open(subject: Subject, threads: int | None) -> Runtime:
    return open_runtime(subject.folder, Path(subject.file) if subject.file else None, threads)


def _measure(
    subject: Subject,
    runtime: Runtime,
    held: Mapping[str, Heldout],
    reference: Mapping[str, Values] | None,
    progress: Progress | None,
) -> tuple[Row, dict[str, Values]]:
    bits: dict[str, Values] = {}
    domains: dict[str, DomainResult] = {}
    started, scored = perf_counter(), 0
    for domain, text in held.items():
        label = f"{subject.name} on {domain}"
        bits[domain], sizes, tokens = score(runtime, text, label, progress)
        scored += tokens
        against = ratio(bits[domain] - reference[domain], sizes) if reference else None
        domains[domain] = DomainResult(ratio(bits[domain], sizes), against, len(sizes), text.nbytes, tokens)
    seconds = max(perf_counter() - started, 1e-9)
    speed = _writing_speed(runtime, [w.text for text in held.values() for w in text.windows])
    return Row(subject.nbytes, speed, scored / seconds, domains), bits


def _writing_speed(runtime: Runtime, prompts: Sequence[str]) -> float:
    """Tokens a second after the first, over as many of the first four prompts as 32 tokens take."""
    tokens, seconds = 0, 0.0
    for prompt in prompts[:4]:
        started = None
        for piece in runtime.generate(prompt[:200], Sampling(max_tokens=_SPEED_TOKENS, temperature=0)):
            now = perf_counter()
            if started is not None:
                tokens, seconds = tokens + piece.tokens, seconds + now - started
            started = now
        if tokens >= _SPEED_TOKENS // 2:
            break
    return tokens / seconds if tokens else 0.0
