"""A slice as a quantized GGUF: export, quantize, try it out, record it in slice.json.

llama.cpp quantizes, in a process of its own, since it ends its process on what it does not like. A file
that does not load, or cuts text otherwise than the slice, never gets its name. Whether the result is any
good is measured in `slices.evaluate`.
"""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from slices import manifest
from slices.atomic import refuse_existing, staged
from slices.errors import NotFound, RunFailed, Unsupported
from slices.export import write_gguf
from slices.gguf_header import read_gguf_header
from slices.home import check_name

# the name of a mix -> llama.cpp's number
TYPES: Mapping[str, int] = {"Q2_K": 10, "Q3_K_M": 12, "Q4_K_M": 15, "Q8_0": 7, "BF16": 32}
Progress = Callable[[int, int], None]  # tensors done, tensors in all


@dataclass(frozen=True)
class Quantized:
    """A finished GGUF. `bits_per_weight` counts tensor data only, norms included."""

    path: Path
    type: str
    bytes: int
    bits_per_weight: float
    sha256: str
    seconds: float


def quantize(
    folder: Path,
    type: str,
    out: Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
    threads: int | None = None,
) -> Quantized:
    """Write the checkpoint in `folder` as a GGUF of `type`, by default to `<folder>/<name>-<TYPE>.gguf`.

    Args:
        out: where to, needed for a folder that is no finished slice.
        force: replace what is there.
        threads: processor threads; by default every core.

    Raises:
        Unsupported: the type is unknown here, or llama.cpp cannot express the slice.
        NotFound: there is no slice, or no `out` for a plain checkpoint.
        Exists: the output is there and `force` is false.
        RunFailed: llama.cpp gave up, or the result does not run. Nothing is left behind.
    """
    if type not in TYPES:
        raise Unsupported(f"the type {type!r} is not supported; expected one of {', '.join(TYPES)}")
    started = perf_counter()
    target = out or _default_target(folder, type)
    refuse_existing(target, force)
    with staged(target, force) as partial:
        _write(folder, type, target, partial, progress, threads or os.cpu_count() or 1)
        _run_child(["verify", str(partial), str(folder)])
        done = _describe(partial, target, type, started)
    _record(folder, done)
    return done


def _default_target(folder: Path, type: str) -> Path:
    if not (folder / manifest.FILE).is_file():
        raise NotFound(f"{folder} is no finished slice (no {manifest.FILE}); say with -o where the GGUF goes")
    return folder / check_name(f"{manifest.read(folder).name}-{type}.gguf")


def _write(
    folder: Path, type: str, target: Path, partial: Path, progress: Progress | None, threads: int
) -> None:
    if type == "BF16":
        write_gguf(folder, partial, target.stem)
        return
    # Named so that the next run sweeps it away, should this process be killed.
    exported = partial.with_name(f".{target.name}.partial-bf16-{os.getpid()}")
    try:
        write_gguf(folder, exported, target.stem)
        _run_child(["quantize", str(exported), str(partial), str(TYPES[type]), str(threads)], progress)
    finally:
        exported.unlink(missing_ok=True)


def _run_child(arguments: list[str], progress: Progress | None = None) -> None:
    """Run `slices.quantize_child`; it ends with this process, however that ends."""
    command = [sys.executable, "-m", "slices.quantize_child", *arguments]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(),
            text=True,
        ) as child,
    ):
        try:
            for line in child.stdout or ():
                counts = line.split()
                if progress and len(counts) == 2:
                    progress(int(counts[0]), int(counts[1]))
            status = child.wait()
        except BaseException:
            child.kill()
            raise
        if status:
            errors.seek(0)
            raise RunFailed(_reason(status, errors.read().decode(errors="replace")))


def _environment() -> dict[str, str]:
    """Ours, with this package importable, and no debugger attached to an abort."""
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "GGML_NO_BACKTRACE": "1"}


def _reason(status: int, complaint: str) -> str:
    last = next(
        (line.strip() for line in reversed(complaint.splitlines()) if line.strip()), "it gave no reason"
    )
    if status < 0:
        return f"llama.cpp ended its process with {signal.Signals(-status).name}: {last}"
    return last


def _describe(partial: Path, target: Path, type: str, started: float) -> Quantized:
    with partial.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    bits = read_gguf_header(partial).bits_per_weight
    return Quantized(target, type, partial.stat().st_size, bits, digest, perf_counter() - started)


def _record(folder: Path, done: Quantized) -> None:
    """Name the file in slice.json, if it lies beside it. Measurements of a file it replaced are dropped."""
    if not (folder / manifest.FILE).is_file() or done.path.resolve().parent != folder.resolve():
        return
    slice_ = manifest.read(folder)
    file = check_name(done.path.name)
    entry = manifest.Quantized(
        file=file,
        type=done.type,
        bytes=done.bytes,
        bits_per_weight=done.bits_per_weight,
        sha256=done.sha256,
    )
    others = [each for each in slice_.quantized if each.file != file]
    measured = [each for each in slice_.measurements if each.of != file]
    update = {"quantized": [*others, entry], "measurements": measured}
    manifest.write(folder, slice_.model_copy(update=update))
