"""A slice's file against the parent's plain quants, measured and written into slice.json."""

from pathlib import Path

from slices import manifest
from slices.checkpoint import weight_files
from slices.errors import SliceError
from slices.estimate import Estimate, ratio
from slices.manifest import Verdict
from slices.measure.bits_per_byte import score_text
from slices.measure.compare_mode import CompareMode, skip_reason
from slices.measure.dominated import unknown_verdict, verdict
from slices.measure.heldout import SAMPLE_BYTES, Heldout, cut_heldout
from slices.measure.plain import plain_quants
from slices.model_ref import locate
from slices.progress import Progress
from slices.runtimes.open import open_runtime


def judge(
    folder: Path,
    variant: str,
    documents: list[str],
    when: CompareMode = CompareMode.AUTO,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Measure a slice's file (`variant`: its name, or "bf16") on held-out documents, recorded in slice.json.

    It is "unknown", with the reason, where nothing can be measured: never an error, since the slice is made.

    Args:
        when: AUTO skips parents of more than `MAX_AUTO_PARENT_BYTES`, ALWAYS does not, NEVER measures none.

    Raises:
        NotFound: there is no slice.
    """
    made = manifest.read(folder)
    try:
        found = _measured(folder, made, variant, documents, when, threads, progress)
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
    documents: list[str],
    when: CompareMode,
    threads: int | None,
    progress: Progress | None,
) -> Verdict:
    if reason := skip_reason(when, made.parent.bytes):
        return unknown_verdict(variant, made.domain, reason)
    parent = locate(made.parent.model)
    text = cut_heldout(documents, SAMPLE_BYTES)
    nbytes = _bytes(folder, variant)
    plain = plain_quants(parent, text, nbytes, threads, progress)
    runtime = open_runtime(folder, None if variant == manifest.BF16 else Path(variant), threads)
    try:
        score = score_text(f"{made.name} ({variant})", runtime, text, progress=progress)
        bits, sizes = score.bits, score.bytes
    finally:
        runtime.close()
    _record_bits(folder, variant, ratio(bits, sizes), text)
    return verdict(variant, made.domain, bits, sizes, plain, text)


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
