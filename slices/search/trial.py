"""One structure of a search: cut it, foretell its sizes, measure the types that are worth it."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from slices.cut import pipeline as story
from slices.cut.pipeline import plan_cut
from slices.cut.request import SliceRequest
from slices.estimate import Values, ratio
from slices.export import write_gguf
from slices.measure.divergence import Divergence, measure
from slices.measure.heldout import Heldout
from slices.measure.reference import kept
from slices.measure.score import score
from slices.measure.token_map import token_map
from slices.progress import Progress
from slices.quant.quantize import quantize
from slices.quant.recipe import make_recipe
from slices.quant.size import name_of, predict_each
from slices.runtimes.open import open_runtime
from slices.search.candidates import TABLES, TYPES, Structure, may_fit, worth_trying
from slices.search.frontier import Tried


@dataclass(frozen=True)
class Bench:
    """What every trial is measured with. `bits`, `sizes`: the parent's bits, the bytes, by document."""

    request: SliceRequest
    parent: Path
    text: Heldout
    budget: int
    bits: Values
    sizes: Values
    scratch: Path
    threads: int | None
    progress: Progress


@dataclass(frozen=True)
class Skipped:
    """A structure or type that was not measured, and why; `bytes` is what it would take."""

    label: str
    bytes: int
    reason: str


def parent_bits(
    parent: Path, text: Heldout, threads: int | None, progress: Progress
) -> tuple[Values, Values]:
    """Bits and bytes of each document under the parent, in its own tokens."""
    runtime = open_runtime(parent, None, threads)
    try:
        bits, sizes, _ = score(runtime, text, "the parent", progress)
    finally:
        runtime.close()
    return bits, sizes


def request_for(request: SliceRequest, structure: Structure, target: Path) -> SliceRequest:
    """The cut that makes `structure` in `target`."""
    return replace(
        request, output=target, name=None, force=False,
        layers=structure.layers, vocab=structure.vocab, ffn=structure.ffn,
    )  # fmt: skip


def try_structure(structure: Structure, bench: Bench) -> Iterator[Tried | Skipped]:
    """Everything worth knowing of a structure: its files that fit, measured, and those that do not."""
    folder = bench.scratch / "slice"
    wanted = request_for(bench.request, structure, folder)
    _, plan, _ = plan_cut(wanted, bench.progress, measure=False)
    if not may_fit(plan.nbytes, bench.budget):
        yield Skipped(str(structure), plan.nbytes, "over the budget in every type")
        return
    shutil.rmtree(folder, ignore_errors=True)
    story.cut(wanted, bench.progress)
    exported = bench.scratch / "bf16.gguf"
    write_gguf(folder, exported, name_of(folder), data=False)
    sizes = _sizes(exported)
    chosen = worth_trying(sizes, bench.budget)
    for type, tables, nbytes in sizes:
        if (type, tables) not in chosen:
            label = f"{structure}: {type}" + (f", tables {tables}" if tables else "")
            yield Skipped(label, nbytes, "over the budget" if nbytes > bench.budget else "a larger one fits")
    if chosen:
        write_gguf(folder, exported, name_of(folder))
        yield from _measured(structure, folder, exported, chosen, bench)
    shutil.rmtree(folder)


def _sizes(exported: Path) -> list[tuple[str, str | None, int]]:
    """Every type, tables and size to the byte; of equal sizes the first."""
    kinds = [(type, tables) for type in TYPES for tables in TABLES if not (type == "BF16" and tables)]
    foretold = predict_each(exported, [make_recipe(*kind) for kind in kinds], with_imatrix=False)
    found: dict[int, tuple[str, str | None, int]] = {}
    for (type, tables), each in zip(kinds, foretold, strict=True):
        if each is not None:
            found.setdefault(each.bytes, (type, tables, each.bytes))
    return list(found.values())


def _measured(
    structure: Structure, folder: Path, exported: Path, chosen: list[tuple[str, str | None]], bench: Bench
) -> Iterator[Tried]:
    ours = open_runtime(folder, None, bench.threads)
    windows = [ours.encode(window.text) for window in bench.text.windows]
    ours.close()
    ids = None if structure.vocab == "all" else token_map(folder, bench.parent)
    parent = open_runtime(bench.parent, None, bench.threads)
    with kept("the parent", parent, bench.text, windows, ids, bench.scratch, bench.progress) as reference:
        parent.close()
        for type, tables in chosen:
            out = bench.scratch / "trial.gguf"
            made = quantize(
                folder, type, out, force=True, threads=bench.threads, tables=tables, exported=exported
            )
            runtime = open_runtime(folder, out.resolve(), bench.threads)
            try:
                found = measure(f"{structure}: {type}", runtime, reference, bench.progress)
            finally:
                runtime.close()
                out.unlink()
            yield _tried(structure, type, tables, made.bytes, found, bench)


def _tried(
    structure: Structure, type: str, tables: str | None, nbytes: int, found: Divergence, bench: Bench
) -> Tried:
    more = ratio(found.sums.bits - bench.bits, bench.sizes)
    return Tried(structure, type, tables, nbytes, found.bits_per_byte, more, found.kl, found.lost_mass)
