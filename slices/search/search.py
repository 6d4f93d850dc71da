"""The story of `--budget`: first rows and types, then fewer layers or neurons around the best; all measured.

What was measured is kept under `$MOM_HOME/search`, so that a killed search goes on. The slice that is
written is the best that fits, with its GGUF beside it and the whole table in slice.json.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from slices import manifest
from slices.architecture.anatomy import Anatomy, read_anatomy
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.errors import BadConfig, RunFailed
from slices.files import atomic
from slices.files.temp_files import temp_dir
from slices.home import home
from slices.measure.heldout import Heldout, cut_heldout
from slices.measure.reference import TEXT_BYTES
from slices.model_ref import open_model
from slices.progress import Progress
from slices.quant.quantize import quantize
from slices.search.candidates import Structure, layer_choices, row_choices, width_choices
from slices.search.frontier import Tried, best, frontier
from slices.search.resume_cache import Memory
from slices.search.trial import Bench, Skipped, parent_bits, request_for, try_structure
from slices.text.corpus import Corpus


@dataclass(frozen=True)
class Found:
    """What a search came to. `chosen` is in `target`, cut and quantized."""

    budget: int
    tried: tuple[Tried, ...]
    skipped: tuple[Skipped, ...]
    chosen: Tried
    target: Path
    gguf: Path


def search(
    request: SliceRequest,
    text: Corpus,
    budget: int,
    vocab: str | None = None,
    ffn: str | None = None,
    threads: int | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Found:
    """Find and write the best slice whose GGUF takes at most `budget` bytes.

    Args:
        request: what is wanted; its layers are searched where they say `auto`.
        text: all of the domain's text, whose held-out part measures.
        vocab, ffn: what stays fixed; None is searched.

    Raises:
        RunFailed: nothing fits; the smallest size is named.
        Exists: the target is there and may not be replaced.
        SliceError: as `cut`, `quantize` and `measure`.
    """
    atomic.refuse_existing(request.target, request.force)
    checkpoint = open_model(request.model)
    anatomy = read_anatomy(checkpoint.config)
    heldout = _heldout(text)
    memory = Memory(checkpoint, text.sha256, heldout, request, budget)
    with temp_dir(home() / "search") as scratch:
        bits, sizes = memory.parent(lambda: parent_bits(checkpoint.folder, heldout, threads, progress))
        bench = Bench(request, checkpoint.folder, heldout, budget, bits, sizes, scratch, threads, progress)
        for structure in _rounds(request, anatomy, vocab, ffn, memory, budget):
            if not memory.knows(structure):
                memory.keep(structure, list(try_structure(structure, bench)))
    chosen = best(memory.tried, budget)
    if chosen is None:
        smallest = min((each.bytes for each in memory.skipped), default=0)
        raise RunFailed(
            f"--budget {budget:,} bytes: nothing fits; the smallest that was planned takes {smallest:,}"
        )
    return _written(request, chosen, memory, threads, progress)


def _rounds(
    request: SliceRequest, anatomy: Anatomy, vocab: str | None, ffn: str | None, memory: Memory, budget: int
) -> Iterator[Structure]:
    """The whole parent; every number of rows; then, around the best of these, fewer layers and neurons."""
    layers = layer_choices(request.layers, len(anatomy.layers))
    widths = width_choices(ffn, int(anatomy.config["intermediate_size"]))
    yield Structure("all", "all", "all")
    for rows in row_choices(vocab, anatomy.dims.vocab):
        yield Structure(layers[0], rows, widths[0])
    around = best(memory.tried, budget)
    rows = around.structure.vocab if around else row_choices(vocab, anatomy.dims.vocab)[-1]
    wider = _wider(rows, row_choices(vocab, anatomy.dims.vocab))
    for fewer in layers[1:]:
        yield from (Structure(fewer, each, widths[0]) for each in wider)
    for narrow in widths[1:]:
        yield from (Structure(layers[0], each, narrow) for each in wider)


def _wider(rows: str, choices: list[str]) -> list[str]:
    """The best number of rows and the next larger one, for which a smaller decoder may make room."""
    at = choices.index(rows)
    return choices[max(0, at - 1) : at + 1]


def _heldout(text: Corpus) -> Heldout:
    try:
        return cut_heldout(text.heldout().documents, TEXT_BYTES)
    except BadConfig as error:
        raise BadConfig(f"a search measures on held-out text: {error}; bring more with --corpus") from None


def _written(
    request: SliceRequest, chosen: Tried, memory: Memory, threads: int | None, progress: Callable[..., None]
) -> Found:
    """Cut and quantize what was chosen, and record the table."""
    wanted = replace(
        request_for(request, chosen.structure, request.target), name=request.name, force=request.force
    )
    cut(wanted, progress)
    label = f"quantize {request.slice_name}"
    made = quantize(
        request.target, chosen.type, threads=threads, tables=chosen.tables,
        progress=lambda n, of: progress(label, n, of),
    )  # fmt: skip
    told: dict[str, Any] = {
        "budget": memory.budget,
        "chosen": chosen.label,
        "candidates": [each.to_json() for each in memory.tried],
        "skipped": [asdict(each) for each in memory.skipped],
        "frontier": [each.label for each in frontier(memory.tried)],
    }
    done = manifest.read(request.target)
    manifest.write(request.target, done.model_copy(update={"search": told}))
    return Found(memory.budget, tuple(memory.tried), tuple(memory.skipped), chosen, request.target, made.path)
