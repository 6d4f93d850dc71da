"""A slice's file against the parent's plain quants, measured and written into slice.json."""

from pathlib import Path

from slices import manifest
from slices.checkpoint import weight_files
from slices.errors import SliceError
from slices.estimate import Estimate
from slices.manifest import Verdict
from slices.measure.bits_per_byte import TextScore, score_text
from slices.measure.compare_mode import NOT_MEASURED, CompareMode
from slices.measure.dominated import unknown_verdict, verdict
from slices.measure.heldout import Heldout
from slices.measure.rival import RivalText, find_rival, skip_reason
from slices.model_ref import locate
from slices.progress import Progress
from slices.runtimes.open import open_runtime


def judge(
    folder: Path,
    variant: str,
    text: RivalText,
    when: CompareMode = CompareMode.AUTO,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Measure a slice's file (`variant`: its name, or "bf16") and its rival, recorded in slice.json.

    It is "unknown", with the reason, where nothing can be measured: never an error, since the slice is made.
    The file's bits per byte on verdict text are recorded wherever it runs.

    Args:
        text: of the slice's own domain.
        when: AUTO leaves out parents whose plain quants take long to measure, ALWAYS does not, NEVER measures
            nothing.

    Raises:
        NotFound: there is no slice.
    """
    made = manifest.read(folder)
    try:
        if when is CompareMode.NEVER:
            found = unknown_verdict(variant, made.domain, NOT_MEASURED)
        else:
            found = _measured(folder, made, variant, text, when, threads, progress)
    except SliceError as error:
        found = unknown_verdict(variant, made.domain, str(error))
    return record_verdict(folder, found)


def record_verdict(folder: Path, found: Verdict) -> Verdict:
    """Write a verdict into slice.json, over an older one on the same file and domain; returns it."""
    made = manifest.read(folder)
    kept = [each for each in made.verdicts if (each.variant, each.domain) != (found.variant, found.domain)]
    manifest.write(folder, made.model_copy(update={"verdicts": [*kept, found]}))
    return found


def _measured(
    folder: Path,
    made: manifest.Manifest,
    variant: str,
    text: RivalText,
    when: CompareMode,
    threads: int | None,
    progress: Progress | None,
) -> Verdict:
    score = measure_file(folder, variant, text.verdict, threads, progress)
    parent, nbytes = locate(made.parent.model), _bytes(folder, variant)
    if reason := skip_reason(parent, text, nbytes, when):
        return unknown_verdict(variant, made.domain, reason)
    rival = find_rival(parent, text, nbytes, threads, progress)
    return verdict(variant, made.domain, score.bits, score.bytes, rival, text)


def measure_file(
    folder: Path, variant: str, text: Heldout, threads: int | None = None, progress: Progress | None = None
) -> TextScore:
    """Bits per byte of a slice's file, recorded in slice.json.

    Raises:
        SliceError: it does not run.
    """
    name = manifest.read(folder).name
    runtime = open_runtime(folder, None if variant == manifest.BF16 else Path(variant), threads)
    try:
        score = score_text(f"{name} ({variant})", runtime, text, progress=progress)
    finally:
        runtime.close()
    _record_bits(folder, variant, score.bits_per_byte, text)
    return score


def _record_bits(folder: Path, variant: str, bits: Estimate, text: Heldout) -> None:
    """Write a file's bits per byte into slice.json, over older ones on the same text."""
    made = manifest.read(folder)
    new = manifest.Measurement(
        variant=variant,
        domain=made.domain,
        metric=manifest.BITS,
        value=bits.value,
        stderr=bits.stderr,
        data=text.sha256,
    )
    kept = [m for m in made.measurements if _key(m) != _key(new)]
    manifest.write(folder, made.model_copy(update={"measurements": [*kept, new]}))


def _key(measurement: manifest.Measurement) -> tuple[str, str, str, str]:
    return measurement.variant, measurement.domain, measurement.metric, measurement.data


def _bytes(folder: Path, variant: str) -> int:
    files = weight_files(folder) if variant == manifest.BF16 else [folder / variant]
    return sum(file.stat().st_size for file in files)
