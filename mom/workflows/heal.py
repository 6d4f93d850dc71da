"""`mom heal`: how a slice is to be taught, what it costs, what came of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mom.display import console
from mom.workflows.compare import judge_file, show_verdict, told
from mom.workflows.domain_text import own_text
from slices import manifest
from slices.errors import BadConfig
from slices.heal.curve import Point
from slices.heal.heal import Healed, Order, heal, save_teacher, within
from slices.heal.loop import News
from slices.heal.memory_bound import Memory
from slices.heal.settings import Healing
from slices.home import check_name, slices_home
from slices.manifest import BF16
from slices.measure.judge import check_when
from slices.pictures.figure import check_picture
from slices.pictures.healing import draw_healing
from slices.text.corpus import Corpus, read_corpus


@dataclass(frozen=True)
class Wish:
    """What the command line asks for, beside the settings that `Healing` holds."""

    slice: str
    healing: Healing
    minutes: float | None = None
    output: Path | None = None
    corpus: tuple[Path, ...] = ()
    teacher: Path | None = None
    save_teacher: Path | None = None
    top: int = 64
    picture: Path | None = None
    device: str = "auto"
    threads: int | None = None
    force: bool = False
    compare: str = "auto"


def heal_slice(wish: Wish) -> dict[str, Any]:
    """Heal, or save the teacher, and report as `mom heal --json` prints it."""
    folder = manifest.find(wish.slice)
    made = manifest.read(folder)
    check_when(wish.compare)
    if wish.picture is not None:
        check_picture(wish.picture)
    with console.progress_bar() as report:
        order = _order(wish, folder, made, _text(wish, made, report))
        if wish.minutes is not None:
            order = within(order, wish.minutes)
            console.warn(f"{wish.minutes:g} minutes are about {order.healing.steps} steps here")
        if wish.save_teacher is not None:
            return _saved(wish, order, report)
        healed = heal(order, _teller(report, folder.name), _tell_memory)
        found = judge_file(healed.path, BF16, wish.compare, wish.threads, report)
    if wish.picture is not None:
        draw_healing({healed.manifest.name: healed.run.curve}, wish.picture)
    return {**_figures(healed, wish.picture), "verdict": told(found)}


def show_healed(figures: dict[str, Any]) -> None:
    """Before and after, as a table; a saved teacher in a line."""
    if "before" not in figures:
        size = console.size(figures["bytes"])
        console.out.print(f"{figures['path']}: the teacher on {figures['tokens']:,} tokens, {size}")
        return
    rows = [_row(name, figures[name]) for name in ("before", "after")]
    title = f"{figures['path']}: step {figures['best']} of {figures['steps']}, {figures['tokens']:,} tokens"
    console.print_table(title, ["held-out text", "KL to the parent", "bits per byte", "nats a token"], rows)
    if figures["stopped"]:
        console.warn(f"ended early: {figures['stopped']}")
    show_verdict(figures["verdict"])


def _order(wish: Wish, folder: Path, made: manifest.Manifest, text: Corpus) -> Order:
    target = wish.output or slices_home() / f"{made.name}-healed"
    check_name(target.name)
    if target.resolve() == folder.resolve():
        raise BadConfig(f"{target} is the slice itself: healing writes a slice of its own, say -o")
    return Order(folder, target, text, wish.healing, wish.teacher, wish.device, wish.threads, wish.force)


def _text(wish: Wish, made: manifest.Manifest, report: console.Report) -> Corpus:
    return read_corpus(wish.corpus) if wish.corpus else own_text(made.domain, made, report)


def _teller(report: console.Report, name: str) -> Any:
    def told(news: News) -> None:
        report(f"heal {name}", news.step, news.of)
        if news.point is not None:
            console.err.print(_line(news, news.point), soft_wrap=True, markup=False)

    return told


def _line(news: News, point: Point) -> str:
    kl, bits = point.kl, point.bits_per_byte
    return (
        f"step {news.step} of {news.of}, {point.tokens:,} tokens, {news.tokens_per_second:.0f} tokens/s: "
        f"held-out KL {kl.value:.4f} ± {kl.stderr:.4f}, bits per byte {bits.value:.4f} ± {bits.stderr:.4f}"
    )


def _tell_memory(needed: Memory) -> None:
    parts = ("teacher", "student", "learning", "activations", "libraries")
    shares = ", ".join(f"{part} {console.size(getattr(needed, part))}" for part in parts)
    console.err.print(
        f"at most {console.size(needed.total)} of memory: {shares}", soft_wrap=True, markup=False
    )


def _saved(wish: Wish, order: Order, report: console.Report) -> dict[str, Any]:
    assert wish.save_teacher is not None
    label = f"read with the parent of {order.slice.name}"
    nbytes = save_teacher(order, wish.save_teacher, wish.top, lambda n, of: report(label, n, of))
    return {
        "path": str(wish.save_teacher),
        "bytes": nbytes,
        "tokens": order.healing.tokens,
        "steps": order.healing.steps,
        "top": wish.top,
    }


def _figures(healed: Healed, picture: Path | None) -> dict[str, Any]:
    return {
        "path": str(healed.path),
        "name": healed.manifest.name,
        "method": healed.manifest.healing["settings"]["method"] if healed.manifest.healing else None,
        "steps": healed.run.step,
        "best": healed.after.step,
        "tokens": healed.run.curve[-1].tokens,
        "seconds": round(healed.run.seconds, 1),
        "stopped": healed.stopped.reason if healed.stopped else None,
        "failed": healed.stopped is not None and healed.stopped.failed,
        "before": healed.before.to_json(),
        "after": healed.after.to_json(),
        "curve": [point.to_json() for point in healed.run.curve],
        "picture": None if picture is None else str(picture),
    }


def _row(name: str, point: dict[str, Any]) -> list[str]:
    kl, bits = point["kl"], point["bits_per_byte"]
    return [
        name,
        f"{kl['value']:.4f} ± {kl['stderr']:.4f}",
        f"{bits['value']:.4f} ± {bits['stderr']:.4f}",
        f"{point['nll']:.4f}",
    ]
