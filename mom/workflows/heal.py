"""`mom heal`: run the healing, report its progress and its result."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mom.display import console
from mom.workflows.compare import judge_file, show_verdict, verdict_json
from mom.workflows.domain_text import own_text, used_text
from slices import manifest
from slices.errors import BadConfig
from slices.heal.control import NO_CONTROL, Control, check_control, control_folder, heal_control, is_healed_by
from slices.heal.curve import EvalPoint
from slices.heal.heal import fit_steps, heal, save_teacher
from slices.heal.loop import StepCallback, TrainingProgress
from slices.heal.memory_bound import MemoryBound
from slices.heal.request import HealRequest
from slices.heal.settings import HealConfig
from slices.home import check_name, slices_home
from slices.manifest import BF16
from slices.measure.compare_mode import CompareMode
from slices.measure.overlap import overlap
from slices.pictures.figure import check_plot_path
from slices.pictures.healing import plot_healing_curves
from slices.progress import Progress
from slices.text.corpus import Corpus, Part, part_of, read_corpus


@dataclass(frozen=True)
class HealOptions:
    """The options of `mom heal`; hyperparameters are in `config`."""

    slice: str
    config: HealConfig
    minutes: float | None = None
    output: Path | None = None
    corpus: tuple[Path, ...] = ()
    teacher: Path | None = None
    save_teacher: Path | None = None
    top_k: int = 64
    plot: Path | None = None
    device: str = "auto"
    threads: int | None = None
    force: bool = False
    compare: CompareMode = CompareMode.AUTO
    control: bool = False


def heal_slice(options: HealOptions) -> dict[str, Any]:
    """Heal a slice, or cache its teacher; returns what `mom heal --json` prints."""
    folder = manifest.find(options.slice)
    entry = manifest.read(folder)
    if options.plot is not None:
        check_plot_path(options.plot)
    with console.progress_bar() as progress:
        request = _request(options, folder, entry, _text(options, entry, progress))
        if options.minutes is not None:
            request = fit_steps(request, options.minutes)
            console.warn(f"{options.minutes:g} minutes are about {request.config.steps} steps here")
        if options.save_teacher is not None:
            return _save_teacher(request, options.save_teacher, options.top_k, progress)
        figures = _healed(options, request, progress)
        verdict = judge_file(request.target, BF16, options.compare, options.threads, progress)
    return {**figures, "verdict": verdict_json(verdict)}


def _healed(options: HealOptions, request: HealRequest, progress: Progress) -> dict[str, Any]:
    """Heal the slice, and its control where one is asked for; what is finished already is taken."""
    if options.control:
        check_control(request)
    if options.control and not options.force and is_healed_by(request):
        console.warn(f"{request.target} is healed already; its control follows")
        figures = _figures(request.target)
    else:
        result = heal(request, _show_step(progress, request.slice.name), _show_memory)
        figures = _figures(result.path, result.stopped is not None and result.stopped.failed)
    if options.plot is not None:
        curve = [EvalPoint.from_json(point) for point in figures["curve"]]
        plot_healing_curves({figures["name"]: curve}, options.plot)
    control = None
    if options.control:
        name = control_folder(request.target).name
        control = _control_figures(heal_control(request, _show_step(progress, name), _show_memory))
    return {**figures, "plot": None if options.plot is None else str(options.plot), "control": control}


def show_healed(figures: dict[str, Any]) -> None:
    """The evaluations before and after as a table; a cached teacher in a line."""
    if "before" not in figures:
        size = console.size(figures["bytes"])
        console.out.print(f"{figures['path']}: cached teacher of {figures['tokens']:,} tokens, {size}")
        return
    rows = [_row(name, figures[name]) for name in ("before", "after")]
    control = figures["control"]
    if control is not None and control["folder"] is not None:
        rows += [_row(f"control {name}", control[name]) for name in ("before", "after")]
    title = (
        f"{figures['path']}: step {figures['best_step']} of {figures['steps']}, {figures['tokens']:,} tokens"
    )
    if figures["quantization"]:
        title += f", as {figures['quantization']['type']}"
    columns = ["verdict text", "KL to the parent", "bits per byte", "NLL per token"]
    console.print_table(title, columns, rows)
    if figures["stopped"]:
        console.warn(f"stopped early: {figures['stopped']}")
    if control is not None and control["reason"]:
        console.warn(control["reason"])
    if control is None:
        console.warn(NO_CONTROL)
    show_verdict(figures["verdict"])


def _request(options: HealOptions, folder: Path, entry: manifest.Manifest, text: Corpus) -> HealRequest:
    target = options.output or slices_home() / f"{entry.name}-healed"
    check_name(target.name)
    if target.resolve() == folder.resolve():
        raise BadConfig(f"{target} is the slice itself: expected another folder for the healed slice (-o)")
    return HealRequest(
        slice=folder,
        target=target,
        text=text,
        config=options.config,
        teacher=options.teacher,
        device=options.device,
        threads=options.threads,
        force=options.force,
    )


def _text(options: HealOptions, entry: manifest.Manifest, progress: Progress) -> Corpus:
    """The text of the run, without verdict documents that this or an earlier step reads."""
    text = read_corpus(options.corpus) if options.corpus else own_text(entry.domain, entry, progress)
    if not any(part_of(each) == Part.CALIBRATION for each in text.documents):
        return text
    used = used_text(entry, progress).documents
    read = [*used, *text.calibration().documents, *text.selection().documents]
    unseen = set(overlap(text.verdict().documents, read)[0])
    kept = (each for each in text.documents if part_of(each) != Part.VERDICT or each in unseen)
    return replace(text, documents=tuple(kept))


def _show_step(progress: Progress, name: str) -> StepCallback:
    """A callback that moves the progress bar and prints every evaluation."""

    def on_step(training: TrainingProgress) -> None:
        progress(f"heal {name}", training.step, training.total_steps)
        if training.point is not None:
            console.err.print(_step_line(training, training.point), soft_wrap=True, markup=False)

    return on_step


def _step_line(training: TrainingProgress, point: EvalPoint) -> str:
    kl, bits = point.kl, point.bits_per_byte
    return (
        f"step {training.step} of {training.total_steps}, {point.tokens:,} tokens, "
        f"{training.tokens_per_second:.0f} tokens/s: selection KL {kl.value:.4f} ± {kl.stderr:.4f}, "
        f"bits per byte {bits.value:.4f} ± {bits.stderr:.4f}"
    )


def _show_memory(bound: MemoryBound) -> None:
    parts = ("teacher", "student", "optimizer", "activations", "quantizer", "libraries")
    nbytes = {part: getattr(bound, part) for part in parts}
    sizes = ", ".join(f"{part} {console.size(count)}" for part, count in nbytes.items() if count)
    console.err.print(f"at most {console.size(bound.total)} of memory: {sizes}", soft_wrap=True, markup=False)


def _save_teacher(request: HealRequest, path: Path, top_k: int, progress: Progress) -> dict[str, Any]:
    nbytes = save_teacher(request, path, top_k, progress)
    config = request.config
    return {
        "path": str(path),
        "bytes": nbytes,
        "tokens": config.tokens,
        "steps": config.steps,
        "top_k": top_k,
    }


def _figures(folder: Path, failed: bool = False) -> dict[str, Any]:
    """What slice.json says of the healing of the slice in `folder`."""
    made = manifest.read(folder)
    healing = made.healing or {}
    quantization = healing.get("quantization")
    kept = ("steps", "tokens", "seconds", "stopped", "before", "after", "selection", "curve")
    return {
        "path": str(folder),
        "name": made.name,
        "method": healing["settings"]["method"],
        "best_step": healing["after"]["step"],
        "failed": failed,
        "quantization": quantization,
        **{key: healing[key] for key in kept},
    }


def _control_figures(control: Control) -> dict[str, Any]:
    """Where the control is, and its evaluations before and after; `reason` where it is the parent itself."""
    points = {"before": None, "after": None}
    if control.folder is not None:
        healing = manifest.read(control.folder).healing or {}
        points = {name: healing[name] for name in points}
    return {**control.to_json(), **points}


def _row(name: str, point: dict[str, Any]) -> list[str]:
    kl, bits = point["kl"], point["bits_per_byte"]
    return [
        name,
        f"{kl['value']:.4f} ± {kl['stderr']:.4f}",
        f"{bits['value']:.4f} ± {bits['stderr']:.4f}",
        f"{point['nll']:.4f}",
    ]
