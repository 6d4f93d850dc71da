"""`mom quantize --type auto`: the goal, the ladder of types, the file that was kept."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mom.display import console
from mom.workflows.compare import judge_made
from mom.workflows.domain_text import own_text, used_text
from mom.workflows.quantize import (
    AUTO,
    QuantizeOptions,
    domain_imatrix,
    healing_kept,
    imatrix_report,
    show_quantized,
)
from slices import manifest
from slices.architecture.anatomy import read_anatomy
from slices.checkpoint import open_checkpoint
from slices.errors import BadConfig, NotFound
from slices.measure.divergence import Divergence
from slices.measure.heldout import SAMPLE_BYTES, Heldout, cut_heldout, read_selection, read_verdict
from slices.measure.ladder import Ladder, LadderOptions, predict_ladder_sizes, run_ladder
from slices.measure.overlap import without_seen
from slices.measure.predictor import Ratio, advise, sentence, verdict_against
from slices.measure.quant_trials import Goal, GoalNotMet, QuantTrial
from slices.progress import Progress
from slices.quant.types import TYPES, find_type
from slices.text.corpus import Part
from slices.text.use import record_text_use, text_use

OVER = "over the budget"


def climb_ladder(options: QuantizeOptions) -> dict[str, Any]:
    """Write the file that meets the goal, and report as `mom quantize --json` prints it.

    A type given by name is the only trial. Where none meets the goal, the measured ones go to stderr.
    """
    goal, types, folder = _goal(options), _types(options), manifest.find_or_checkpoint(options.slice)
    with console.progress_bar() as report:
        texts = _texts(options, folder, report)
        imatrix = domain_imatrix(folder, report) if options.imatrix == "domain" else None
        making = LadderOptions(imatrix, options.embedding_type, options.threads)
        try:
            found = run_ladder(
                folder,
                texts.selection,
                texts.domain,
                goal,
                types,
                making,
                options.output,
                options.force,
                report,
                texts.verdict,
            )
        except GoalNotMet as error:
            for trial in error.trials:
                console.warn(_in_words(trial))
            raise
        record_text_use(folder, texts.use)
        healing = healing_kept(folder, found.kept, imatrix, report)
        verdict = judge_made(folder, found.kept.path, options.compare, options.threads, report)
    return {
        **_kept(found),
        "verdict": verdict,
        "healing_kept": healing,
        "imatrix": None if imatrix is None else imatrix_report(folder, imatrix),
        "advice": _advice(folder, found.trials),
    }


def predict_ladder(options: QuantizeOptions) -> dict[str, Any]:
    """The size of every trial, to the byte; nothing is written or measured."""
    goal, folder = _goal(options), manifest.find_or_checkpoint(options.slice)
    with tempfile.TemporaryDirectory(prefix="mom-") as scratch:
        making = LadderOptions(None, options.embedding_type, options.threads)
        sizes = predict_ladder_sizes(folder, Path(scratch) / "headers.gguf", _types(options), making)
    fits = {type: "fits" if goal.fits(nbytes) else OVER for type, nbytes in sizes.items()}
    return {"goal": asdict(goal), "sizes": sizes, "left_out": fits, "ladder": []}


def show_ladder(figures: dict[str, Any]) -> None:
    """Every trial, the file that was kept, and what the published predictor would have said."""
    rows = [_row(trial) for trial in figures["ladder"]]
    for type, verdict in figures["left_out"].items():
        rows.append([type, console.size(figures["sizes"][type]), *["-"] * 5, verdict])
    columns = [
        "type", "size", "bits per weight", "KL ± error", "KL p99", "same top 1", "bits per byte", "verdict"
    ]  # fmt: skip
    if "path" not in figures:
        console.print_table("nothing was written or measured", columns, rows)
        return
    text = figures["text"]
    title = f"{figures['domain']}: {text['documents']} selection documents, {text['bytes']:,} bytes"
    console.print_table(title, columns, rows)
    if figures["kept"]:
        console.out.print(_kept_line(figures), soft_wrap=True, markup=False)
    for line in figures["advice"].values():
        console.out.print(line, soft_wrap=True, markup=False)
    show_quantized(figures)


def _kept_line(figures: dict[str, Any]) -> str:
    kept, kl, bits = figures["kept"], figures["kept"]["kl"], figures["kept"]["bits_per_byte"]
    return (
        f"{figures['type']} on {kept['documents']} verdict documents, which did not choose it: KL "
        f"{kl['value']:.4f} ± {kl['stderr']:.4f}, bits per byte {bits['value']:.3f} ± {bits['stderr']:.3f}"
    )


def _goal(options: QuantizeOptions) -> Goal:
    return Goal(options.max_kl, options.budget)


def _types(options: QuantizeOptions) -> tuple[str, ...]:
    return tuple(TYPES) if options.type == AUTO else (find_type(options.type).name,)


@dataclass(frozen=True)
class _Texts:
    """The domain, the text that chooses the type, its record, and the text that measures the chosen one."""

    domain: str
    selection: Heldout
    use: manifest.TextUse
    verdict: Heldout


def _texts(options: QuantizeOptions, folder: Path, report: Progress) -> _Texts:
    """Selection and verdict text of the domain: of `--data`, else the slice's own."""
    made = manifest.read(folder) if (folder / manifest.FILE).is_file() else None
    domain = options.domain or (made.domain if made else None)
    if domain is None:
        raise NotFound(
            f"{folder} is no finished slice that would say its domain: give --domain NAME --data DIR"
        )
    if options.data is not None:
        selection = read_selection(options.data, domain)
        reported = read_verdict(options.data, [domain])[domain]
    elif made is not None:
        own = own_text(domain, made, report)
        selection, reported = own.selection(), list(own.verdict().documents)
    else:
        raise NotFound(f"{folder} is no finished slice, so it has no text of its own: give --data DIR")
    seen = list(selection.documents)
    if options.imatrix == "domain" and made is not None:
        seen += own_text(made.domain, made, report).calibration().documents
    if made is not None:
        seen += used_text(made, report).documents
        reported = without_seen({domain: reported}, {made.name: seen})[0][domain]
    limit = options.max_bytes or SAMPLE_BYTES
    return _Texts(
        domain=domain,
        selection=_cut(domain, Part.SELECTION, selection.documents, limit),
        use=text_use("quantization type", selection, Part.SELECTION),
        verdict=_cut(domain, Part.VERDICT, reported, limit),
    )


def _cut(domain: str, part: Part, documents: Sequence[str], limit: int) -> Heldout:
    try:
        return cut_heldout(documents, limit)
    except BadConfig as error:
        raise BadConfig(f"the {part.value} text of {domain!r}: {error}") from None


def _kept(found: Ladder) -> dict[str, Any]:
    kept, text = found.kept, found.text
    return {
        "path": str(kept.path),
        "type": kept.type,
        "bytes": kept.bytes,
        "bits_per_weight": round(kept.bits_per_weight, 3),
        "predicted_bytes": kept.predicted.bytes,
        "seconds": round(sum(trial.seconds for trial in found.trials), 2),
        "sha256": kept.sha256,
        "goal": asdict(found.goal),
        "domain": found.domain,
        "text": {"documents": text.documents, "bytes": text.nbytes, "sha256": text.sha256},
        "sizes": dict(found.sizes),
        "left_out": _left_out(found),
        "kept": None if found.reported is None else _kept_figures(found.reported),
        "ladder": [trial.to_json() | {"verdict": _verdict(found, trial)} for trial in found.trials],
        "notes": list(kept.predicted.notes),
    }


def _kept_figures(measured: Divergence) -> dict[str, Any]:
    """The kept file on verdict text, which did not choose it."""
    return {
        "data": measured.data,
        "documents": len(measured.sums.bytes),
        "kl": asdict(measured.kl),
        "same_top1": asdict(measured.same_top1),
        "bits_per_byte": asdict(measured.bits_per_byte),
        "against_bf16": asdict(measured.against),
        "perplexity_ratio": asdict(measured.perplexity_ratio),
    }


def _left_out(found: Ladder) -> dict[str, str]:
    measured = {trial.type for trial in found.trials}
    return {
        type: "not needed" if found.goal.fits(nbytes) else OVER
        for type, nbytes in found.sizes.items()
        if type not in measured
    }


def _verdict(found: Ladder, trial: QuantTrial) -> str:
    if trial is found.chosen:
        return "kept"
    return "KL above the best" if trial.passes else "KL above the limit"


def _row(trial: dict[str, Any]) -> list[str]:
    kl, bits, same = trial["kl"], trial["bits_per_byte"], trial["same_top1"]
    return [
        trial["type"],
        console.size(trial["bytes"]),
        f"{trial['bits_per_weight']:.2f}",
        f"{kl['mean']:.4f} ± {kl['stderr']:.4f}",
        f"{kl['p99']:.3f}",
        f"{same['value']:.1%} ± {same['stderr']:.1%}",
        f"{bits['value']:.3f} ± {bits['stderr']:.3f}",
        trial["verdict"],
    ]


def _in_words(trial: QuantTrial) -> str:
    found = trial.measured
    return (
        f"{trial.type}: {console.size(trial.bytes)}, KL {found.kl.value:.4f} ± {found.kl.stderr:.4f}, "
        f"same top 1 {found.same_top1.value:.1%}, bits per byte {found.bits_per_byte.value:.3f}"
    )


def _advice(folder: Path, trials: Sequence[QuantTrial]) -> dict[str, str]:
    advice = advise(read_anatomy(open_checkpoint(folder).config))
    ratios = {
        trial.type: Ratio(trial.measured.perplexity_ratio.value, trial.measured.perplexity_ratio.stderr)
        for trial in trials
    }
    return {"predictor": sentence(advice), "measured": verdict_against(advice, ratios)}
