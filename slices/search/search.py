"""`mom slice --budget`: a search for the slice whose GGUF fits and has the fewest bits per byte.

First vocabulary sizes and types are tried, then fewer layers or neurons around the best; all are measured on
selection text, with `--heal-steps` after a short healing. Measurements are kept under `$MOM_HOME/search`, so
that a killed search resumes. The best that fits is written with its GGUF beside it, and the table of
candidates in slice.json.
"""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from slices import manifest
from slices.architecture.anatomy import Anatomy, read_anatomy
from slices.cut.pipeline import cut
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
from slices.search.healing import copy_healed_slice, heal_cut, is_healed, keep_healed
from slices.search.request import SearchRequest, cache_key
from slices.search.resume_cache import SearchCache
from slices.search.trial import Skipped, TrialContext, measure_parent, request_for, try_structure
from slices.text.corpus import Corpus, Part
from slices.text.use import record_text_use, text_use


@dataclass(frozen=True)
class SearchResult:
    """A finished search: all candidates, and the chosen one, which is cut into `target` and quantized."""

    budget: int
    candidates: tuple[Candidate, ...]
    skipped: tuple[Skipped, ...]
    chosen: Candidate
    target: Path
    gguf: Path


def search(request: SearchRequest, progress: Progress = no_progress) -> SearchResult:
    """Find and write the best slice whose GGUF takes at most `request.budget` bytes.

    Raises:
        RunFailed: nothing fits; the smallest size is named.
        Exists: the target is there and may not be replaced.
        SliceError: as `cut`, `heal`, `quantize` and the measurement.
    """
    atomic.refuse_existing(request.cut.target, request.cut.force)
    checkpoint = open_model(request.cut.model)
    anatomy = read_anatomy(checkpoint.config)
    heldout = _selection(request.text)
    cache = SearchCache(cache_key(request, checkpoint, heldout), request.budget)
    with temp_dir(home() / "search") as scratch:
        bits, sizes = cache.parent(
            lambda: measure_parent(checkpoint.folder, heldout, request.threads, progress)
        )
        context = TrialContext(
            request=request,
            parent=checkpoint.folder,
            text=heldout,
            parent_bits=bits,
            document_bytes=sizes,
            scratch=scratch,
            progress=progress,
        )
        for structure in _structures(request, anatomy, cache):
            if structure not in cache:
                _try(structure, context, cache)
        return _write_best(cache, context)


def _try(structure: Structure, context: TrialContext, cache: SearchCache) -> None:
    """Measure a structure, and keep its healed weights where they are the best so far."""
    cache.add(structure, list(try_structure(structure, context)))
    incumbent = best(cache.candidates, cache.budget)
    if incumbent and incumbent.heal_steps and incumbent.structure == structure:
        keep_healed(context.request, context.scratch, cache.kept_folder)


def _structures(request: SearchRequest, anatomy: Anatomy, cache: SearchCache) -> Iterator[Structure]:
    """The whole parent; every vocabulary size; then, around the best of these, fewer layers and neurons."""
    layers = layer_choices(request.cut.layers, len(anatomy.layers), request.space)
    widths = ffn_choices(request.ffn, int(anatomy.config["intermediate_size"]), request.space)
    vocabs = vocab_choices(request.vocab, anatomy.dims.vocab, request.space)
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


def _selection(text: Corpus) -> Heldout:
    """The windows that candidates are measured on."""
    try:
        return cut_heldout(text.selection().documents, SAMPLE_BYTES)
    except BadConfig as error:
        raise BadConfig(f"a search measures on selection text: {error}; bring more with --corpus") from None


def _write_best(cache: SearchCache, context: TrialContext) -> SearchResult:
    """Write and quantize the best candidate, and record the search in its manifest."""
    chosen = best(cache.candidates, cache.budget)
    if chosen is None:
        smallest = min((each.bytes for each in cache.skipped), default=0)
        raise RunFailed(
            f"--budget {cache.budget:,} bytes: nothing fits; the smallest planned file takes {smallest:,}"
        )
    request = context.request
    target = request.cut.target
    _write_slice(chosen, cache, context)
    quantized = quantize(
        target,
        chosen.type,
        threads=request.threads,
        embedding_type=chosen.embedding_type,
        progress=context.progress,
    )
    record_text_use(target, text_use("search", request.text.selection(), Part.SELECTION))
    entry = manifest.read(target)
    manifest.write(target, entry.model_copy(update={"search": _record(cache, chosen)}))
    shutil.rmtree(cache.kept_folder, ignore_errors=True)
    return SearchResult(
        budget=cache.budget,
        candidates=tuple(cache.candidates),
        skipped=tuple(cache.skipped),
        chosen=chosen,
        target=target,
        gguf=quantized.path,
    )


def _write_slice(chosen: Candidate, cache: SearchCache, context: TrialContext) -> None:
    """Write the chosen candidate's weights: cut; or as they were healed, again if they were not kept."""
    request, config, progress = context.request, context.request.healing, context.progress
    if config is None or not chosen.heal_steps:
        final = request_for(request.cut, chosen.structure, request.cut.target)
        cut(replace(final, force=request.cut.force), progress)
        return
    healed = cache.kept_folder
    if not is_healed(healed, chosen.structure):
        folder = context.scratch / "slice"
        cut(request_for(request.cut, chosen.structure, folder), progress)
        healed = heal_cut(request, config, folder, context.scratch, progress)
    copy_healed_slice(healed, request.cut.target, request.cut.force)


def _record(cache: SearchCache, chosen: Candidate) -> dict[str, Any]:
    """The search as slice.json records it."""
    return {
        "budget": cache.budget,
        "chosen": chosen.label,
        "candidates": [each.to_json() for each in cache.candidates],
        "skipped": [asdict(each) for each in cache.skipped],
        "frontier": [each.label for each in frontier(cache.candidates)],
    }
