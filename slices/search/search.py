"""`mom slice --budget`: a search for the slice whose GGUF fits and has the fewest bits per byte.

First vocabulary sizes and types are tried, then fewer layers or neurons around the best; all are measured.
Measurements are kept under `$MOM_HOME/search`, so that a killed search resumes. The best that fits is
written with its GGUF beside it, and the table of candidates in slice.json.
"""

from collections.abc import Iterator
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
from slices.measure.heldout import SAMPLE_BYTES, Heldout, cut_heldout
from slices.model_ref import open_model
from slices.progress import Progress, no_progress
from slices.quant.quantize import quantize
from slices.search.candidates import Structure, ffn_choices, layer_choices, vocab_choices
from slices.search.frontier import Candidate, best, frontier
from slices.search.resume_cache import SearchCache
from slices.search.trial import Skipped, TrialContext, measure_parent, request_for, try_structure
from slices.text.corpus import Corpus


@dataclass(frozen=True)
class SearchResult:
    """A finished search: all candidates, and the chosen one, which is cut into `target` and quantized."""

    budget: int
    candidates: tuple[Candidate, ...]
    skipped: tuple[Skipped, ...]
    chosen: Candidate
    target: Path
    gguf: Path


def search(
    request: SliceRequest,
    text: Corpus,
    budget: int,
    vocab: str | None = None,
    ffn: str | None = None,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> SearchResult:
    """Find and write the best slice whose GGUF takes at most `budget` bytes.

    Args:
        request: the cut; its layers are searched where they say `auto`.
        text: all of the domain's text; its held-out part is measured on.
        vocab, ffn: fixed values of --vocab and --ffn; None searches them.

    Raises:
        RunFailed: nothing fits; the smallest size is named.
        Exists: the target is there and may not be replaced.
        SliceError: as `cut`, `quantize` and the measurement.
    """
    atomic.refuse_existing(request.target, request.force)
    checkpoint = open_model(request.model)
    anatomy = read_anatomy(checkpoint.config)
    heldout = _heldout(text)
    cache = SearchCache(
        checkpoint=checkpoint, corpus_sha256=text.sha256, heldout=heldout, request=request, budget=budget
    )
    with temp_dir(home() / "search") as scratch:
        bits, sizes = cache.parent(lambda: measure_parent(checkpoint.folder, heldout, threads, progress))
        context = TrialContext(
            request=request,
            parent=checkpoint.folder,
            text=heldout,
            budget=budget,
            parent_bits=bits,
            document_bytes=sizes,
            scratch=scratch,
            threads=threads,
            progress=progress,
        )
        for structure in _structures(request, anatomy, vocab, ffn, cache):
            if structure not in cache:
                cache.add(structure, list(try_structure(structure, context)))
    return _write_best(request, cache, threads, progress)


def _structures(
    request: SliceRequest, anatomy: Anatomy, vocab: str | None, ffn: str | None, cache: SearchCache
) -> Iterator[Structure]:
    """The whole parent; every vocabulary size; then, around the best of these, fewer layers and neurons."""
    layers = layer_choices(request.layers, len(anatomy.layers))
    widths = ffn_choices(ffn, int(anatomy.config["intermediate_size"]))
    vocabs = vocab_choices(vocab, anatomy.dims.vocab)
    yield Structure("all", "all", "all")
    for rows in vocabs:
        yield Structure(layers[0], rows, widths[0])
    incumbent = best(cache.candidates, cache.budget)
    around = _best_and_next_larger(incumbent.structure.vocab if incumbent else vocabs[-1], vocabs)
    for fewer_layers in layers[1:]:
        yield from (Structure(fewer_layers, rows, widths[0]) for rows in around)
    for narrower in widths[1:]:
        yield from (Structure(layers[0], rows, narrower) for rows in around)


def _best_and_next_larger(rows: str, vocabs: list[str]) -> list[str]:
    """The best vocabulary size and the next larger one, which a smaller decoder may make room for."""
    at = vocabs.index(rows)
    return vocabs[max(0, at - 1) : at + 1]


def _heldout(text: Corpus) -> Heldout:
    try:
        return cut_heldout(text.selection().documents, SAMPLE_BYTES)
    except BadConfig as error:
        raise BadConfig(f"a search measures on held-out text: {error}; bring more with --corpus") from None


def _write_best(
    request: SliceRequest, cache: SearchCache, threads: int | None, progress: Progress
) -> SearchResult:
    """Cut and quantize the best candidate, and record the search in its manifest."""
    chosen = best(cache.candidates, cache.budget)
    if chosen is None:
        smallest = min((each.bytes for each in cache.skipped), default=0)
        raise RunFailed(
            f"--budget {cache.budget:,} bytes: nothing fits; the smallest planned file takes {smallest:,}"
        )
    final = request_for(request, chosen.structure, request.target)
    cut(replace(final, force=request.force), progress)
    quantized = quantize(
        request.target,
        chosen.type,
        threads=threads,
        embedding_type=chosen.embedding_type,
        progress=progress,
    )
    entry = manifest.read(request.target)
    manifest.write(request.target, entry.model_copy(update={"search": _record(cache, chosen)}))
    return SearchResult(
        budget=cache.budget,
        candidates=tuple(cache.candidates),
        skipped=tuple(cache.skipped),
        chosen=chosen,
        target=request.target,
        gguf=quantized.path,
    )


def _record(cache: SearchCache, chosen: Candidate) -> dict[str, Any]:
    """The search as slice.json records it."""
    return {
        "budget": cache.budget,
        "chosen": chosen.label,
        "candidates": [each.to_json() for each in cache.candidates],
        "skipped": [asdict(each) for each in cache.skipped],
        "frontier": [each.label for each in frontier(cache.candidates)],
    }
