"""`mom quantize --type auto`: how big a file may be, how near it must come, what was tried."""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mom.display import console
from mom.workflows.compare import judge_made
from mom.workflows.domain_text import own_text
from mom.workflows.quantize import AUTO, Wish, covered, domain_imatrix, show_quantized
from slices import manifest
from slices.architecture.anatomy import read_anatomy
from slices.checkpoint import open_checkpoint
from slices.errors import BadConfig, NotFound
from slices.measure.heldout import SAMPLE_BYTES, Heldout, cut_heldout, read_heldout
from slices.measure.ladder import Ladder, Making, climb, foretell
from slices.measure.predictor import Ratio, advise, sentence, verdict_against
from slices.measure.rungs import Goal, NonePasses, Rung
from slices.progress import Progress
from slices.quant.types import TYPES, find_type

OVER = "over the budget"
_SIZE = re.compile(r"(\d+(?:\.\d+)?) *(k|ki|m|mi|g|gi)?b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def climb_slice(wish: Wish) -> dict[str, Any]:
    """Keep the file that the goal asks for, and report as `mom quantize --json` prints it.

    A type given by name is the only rung. Where none meets the goal, those measured are told on stderr.
    """
    goal, types, folder = _goal(wish), _types(wish), manifest.find_or_checkpoint(wish.slice)
    with console.progress_bar() as report:
        domain, text = _text(wish, folder, report)
        imatrix = domain_imatrix(folder, report) if wish.imatrix == "domain" else None
        making = Making(imatrix, wish.tables, wish.threads)
        try:
            found = climb(folder, text, domain, goal, types, making, wish.output, wish.force, report)
        except NonePasses as error:
            for rung in error.rungs:
                console.warn(_in_words(rung))
            raise
        verdict = judge_made(folder, found.kept.path, wish.compare, wish.threads, report)
    return {
        **_kept(found),
        "verdict": verdict,
        "imatrix": None if imatrix is None else covered(folder, imatrix),
        "advice": _advice(folder, found.rungs),
    }


def foretell_slice(wish: Wish) -> dict[str, Any]:
    """The rungs there are and their sizes, to the byte; nothing is written or measured."""
    goal, folder = _goal(wish), manifest.find_or_checkpoint(wish.slice)
    with tempfile.TemporaryDirectory(prefix="mom-") as scratch:
        making = Making(None, wish.tables, wish.threads)
        sizes = foretell(folder, Path(scratch) / "headers.gguf", _types(wish), making)
    fits = {type: "fits" if goal.fits(nbytes) else OVER for type, nbytes in sizes.items()}
    return {"goal": asdict(goal), "sizes": sizes, "left_out": fits, "ladder": []}


def show_ladder(figures: dict[str, Any]) -> None:
    """Every rung, the file that was kept, and what the published predictor would have said."""
    rows = [_row(rung) for rung in figures["ladder"]]
    for type, verdict in figures["left_out"].items():
        rows.append([type, console.size(figures["sizes"][type]), *["-"] * 5, verdict])
    columns = [
        "type", "size", "bits per weight", "KL ± error", "KL p99", "same top 1", "bits per byte", "verdict"
    ]  # fmt: skip
    if "path" not in figures:
        console.print_table("nothing was written or measured", columns, rows)
        return
    text = figures["text"]
    title = f"{figures['domain']}: {text['documents']} held-out documents, {text['bytes']:,} bytes"
    console.print_table(title, columns, rows)
    for line in figures["advice"].values():
        console.out.print(line, soft_wrap=True, markup=False)
    show_quantized(figures)


def parse_size(text: str) -> int:
    """Bytes of a size as people write it: 100MB, 2.5GB (powers of ten), 96MiB (powers of two).

    Raises:
        BadConfig: it is no size.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise BadConfig(f"--budget {text}: expected a size such as 100MB, 2.5GB or 96MiB")
    return int(float(found[1]) * _UNITS[(found[2] or "").lower()])


def _goal(wish: Wish) -> Goal:
    return Goal(wish.max_kl, None if wish.budget is None else parse_size(wish.budget))


def _types(wish: Wish) -> tuple[str, ...]:
    return tuple(TYPES) if wish.type == AUTO else (find_type(wish.type).name,)


def _text(wish: Wish, folder: Path, report: Progress) -> tuple[str, Heldout]:
    """The domain and its held-out text: of `--data`, else the slice's own."""
    made = manifest.read(folder) if (folder / manifest.FILE).is_file() else None
    domain = wish.domain or (made.domain if made else None)
    if domain is None:
        raise NotFound(
            f"{folder} is no finished slice that would say its domain: give --domain NAME --data DIR"
        )
    if wish.data is not None:
        documents = read_heldout(wish.data, [domain])[domain]
    elif made is not None:
        documents = list(own_text(domain, made, report).heldout().documents)
    else:
        raise NotFound(f"{folder} is no finished slice, so it has no text of its own: give --data DIR")
    try:
        return domain, cut_heldout(documents, wish.limit or SAMPLE_BYTES)
    except BadConfig as error:
        raise BadConfig(f"the held-out text of {domain!r}: {error}; give --data DIR") from None


def _kept(found: Ladder) -> dict[str, Any]:
    kept, text = found.kept, found.text
    return {
        "path": str(kept.path),
        "type": kept.type,
        "bytes": kept.bytes,
        "bits_per_weight": round(kept.bits_per_weight, 3),
        "predicted_bytes": kept.predicted.bytes,
        "seconds": round(sum(rung.seconds for rung in found.rungs), 2),
        "sha256": kept.sha256,
        "goal": asdict(found.goal),
        "domain": found.domain,
        "text": {"documents": text.documents, "bytes": text.nbytes, "sha256": text.sha256},
        "sizes": dict(found.sizes),
        "left_out": _left_out(found),
        "ladder": [rung.to_json() | {"verdict": _verdict(found, rung)} for rung in found.rungs],
        "notes": list(kept.predicted.notes),
    }


def _left_out(found: Ladder) -> dict[str, str]:
    measured = {rung.type for rung in found.rungs}
    return {
        type: "not needed" if found.goal.fits(nbytes) else OVER
        for type, nbytes in found.sizes.items()
        if type not in measured
    }


def _verdict(found: Ladder, rung: Rung) -> str:
    if rung is found.chosen:
        return "kept"
    return "KL above the best" if rung.passes else "KL above the limit"


def _row(rung: dict[str, Any]) -> list[str]:
    kl, bits, same = rung["kl"], rung["bits_per_byte"], rung["same_top1"]
    return [
        rung["type"],
        console.size(rung["bytes"]),
        f"{rung['bits_per_weight']:.2f}",
        f"{kl['mean']:.4f} ± {kl['stderr']:.4f}",
        f"{kl['p99']:.3f}",
        f"{same['value']:.1%} ± {same['stderr']:.1%}",
        f"{bits['value']:.3f} ± {bits['stderr']:.3f}",
        rung["verdict"],
    ]


def _in_words(rung: Rung) -> str:
    found = rung.measured
    return (
        f"{rung.type}: {console.size(rung.bytes)}, KL {found.kl.value:.4f} ± {found.kl.stderr:.4f}, "
        f"same top 1 {found.same_top1.value:.1%}, bits per byte {found.bits_per_byte.value:.3f}"
    )


def _advice(folder: Path, rungs: Sequence[Rung]) -> dict[str, str]:
    advice = advise(read_anatomy(open_checkpoint(folder).config))
    ratios = {
        rung.type: Ratio(rung.measured.perplexity_ratio.value, rung.measured.perplexity_ratio.stderr)
        for rung in rungs
    }
    return {"predictor": sentence(advice), "measured": verdict_against(advice, ratios)}
