"""The story of a slice: checkpoint, anatomy, layers, text, rows, plan, extract, manifest."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices import manifest
from slices.architecture.anatomy import Anatomy, read_anatomy
from slices.architecture.constraints import Repair, ffn_width, nearest, special_ids
from slices.architecture.layer_spec import auto_count, is_auto, select
from slices.architecture.removal import Removal
from slices.checkpoint import Checkpoint
from slices.cut.extract import extract
from slices.cut.manifest_entry import recorded
from slices.cut.neurons import choose_neurons
from slices.cut.plan import Plan, make_plan
from slices.cut.request import Request
from slices.cut.slice_config import config_json
from slices.cut.vocabulary import choose_rows
from slices.errors import NotFound
from slices.files import atomic
from slices.files.disk_space import check_free_space, map_full_disk_error
from slices.files.safetensors_header import parse_json_object
from slices.model_ref import open_model
from slices.scores.neurons import neuron_scores
from slices.scores.removal import auto_layers, left
from slices.text import domains
from slices.text.corpus import Corpus, read_corpus
from slices.text.expected_counts import expected_counts
from slices.text.synthetic import gguf_of, self_written
from slices.text.token_counts import count_tokens
from slices.tokenizer.files import Bpe, Renumbering, read_bpe, renumber_config, token_ids, tokenizer_files

Progress = Callable[[str, int, int], None]  # stage, done, total


def _quiet(stage: str, done: int, total: int) -> None:
    """No progress."""


def plan_cut(
    request: Request, progress: Progress = _quiet, measure: bool = True
) -> tuple[Checkpoint, Plan, Corpus | None]:
    """Everything up to the plan: nothing is written but the caches of the parent's own text and scores.

    Args:
        measure: false plans some neurons and rows rather than the best: as many bytes, no run of the parent.

    Raises:
        SliceError: the model, domain or corpus is missing or damaged, or the cut is illegal.
    """
    domain = domains.load(request.domain)
    checkpoint = open_model(request.model)
    if not checkpoint.entries:
        raise NotFound(f"{checkpoint.folder} holds no weights: expected model.safetensors or its index")
    anatomy = read_anatomy(checkpoint.config)
    text = None
    if is_auto(request.layers):
        auto_count(request.layers, len(anatomy.layers))  # refuse before any text is written
        text = domain_text(checkpoint, domain, request, progress).calibration()
    layers, repair, removed = _layers(request, checkpoint, anatomy, text, progress)
    width = ffn_width(anatomy, request.ffn)
    portable = request.portable
    make_plan(checkpoint, anatomy, layers, portable=portable)  # refuse before any text is written
    ranked = measure and width is not None and request.ffn_rank == "scores"
    if text is None and (ranked or _needs_text(request, domain, measure)):
        text = domain_text(checkpoint, domain, request, progress).calibration()
    rows = None if request.vocab == "all" else _rows(request.vocab, checkpoint, anatomy, text, progress)
    scores = None
    if ranked and text is not None:
        scores = neuron_scores(checkpoint, anatomy, text, lambda n, of: progress("score neurons", n, of))
    neurons = choose_neurons(anatomy, layers, width, request.ffn_rank, request.seed, scores)
    plan = make_plan(checkpoint, anatomy, layers, rows, neurons, portable, repair, removed)
    return checkpoint, plan, text


def _needs_text(request: Request, domain: domains.Domain, measure: bool) -> bool:
    """Whether the rows depend on text; their number alone does only where the text decides it."""
    if request.vocab == "all":
        return False
    return measure or request.vocab == "domain" or bool(request.corpus or domain.corpus)


def _layers(
    request: Request, checkpoint: Checkpoint, anatomy: Anatomy, text: Corpus | None, progress: Progress
) -> tuple[tuple[int, ...], Repair | None, tuple[Removal, ...]]:
    """The layers that stay, how they were repaired, and what scores on the text (if there is one) removed."""
    if text is not None:
        keep = auto_count(request.layers, len(anatomy.layers))
        removed = auto_layers(checkpoint, anatomy, text, keep, lambda n, of: progress("score layers", n, of))
        return left(anatomy, removed), None, removed
    layers = select(request.layers, [layer.type for layer in anatomy.layers])
    return (*nearest(anatomy, layers), ()) if request.repair else (layers, None, ())


def cut(request: Request, progress: Progress = _quiet) -> manifest.Manifest:
    """Make the slice and return its manifest, which is written last.

    Raises:
        Exists: the target is there and `force` is false.
        SliceError: as `plan_cut`; or the disk is too small.
    """
    started = time.monotonic()
    atomic.refuse_existing(request.target, request.force)
    checkpoint, plan, text = plan_cut(request, progress)
    check_free_space(request.target, plan.nbytes, "the slice")
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress("extract", done, plan.nbytes)

    with map_full_disk_error(request.target), atomic.staged(request.target, request.force) as folder:
        folder.mkdir()
        extract(plan, folder, advance)
        notes = _write_small_files(checkpoint.folder, folder, plan)
        made = recorded(request, checkpoint, plan, text, notes, time.monotonic() - started)
        manifest.write(folder, made)
    return made


def domain_text(
    checkpoint: Checkpoint, domain: domains.Domain, request: Request, progress: Progress = _quiet
) -> Corpus:
    """All of the domain's text: `--corpus`, else the domain's own files, else written by the parent."""
    paths = request.corpus or tuple(domain.corpus)
    if paths:
        return read_corpus(paths)
    return self_written(
        checkpoint, domain, request.seed, lambda done, total: progress(f"write {domain.name}", done, total)
    )


def _rows(
    spec: str, checkpoint: Checkpoint, anatomy: Anatomy, text: Corpus | None, progress: Progress
) -> NDArray[np.int64] | None:
    """The rows to keep; where the text is the parent's own, and so short, the parent ranks the rest."""
    bpe = read_bpe(checkpoint.folder)
    counts = count_tokens(bpe, text) if text else Counter[int]()
    rank = None
    if text is not None and text.source == "parent" and spec != "domain":
        gguf = gguf_of(checkpoint.folder)
        rank = expected_counts(checkpoint, gguf, text, lambda n, of: progress("rank rows", n, of))
    config_ids = _config_ids(checkpoint, anatomy, bpe)
    return choose_rows(spec, bpe, counts, anatomy.shape.vocab, config_ids, rank)


def _config_ids(checkpoint: Checkpoint, anatomy: Anatomy, bpe: Bpe) -> set[int]:
    """Ids that config.json, generation_config.json or the tokenizer's template refer to."""
    generation = _optional_json(checkpoint.folder / "generation_config.json")
    return special_ids(anatomy) | token_ids(generation) | token_ids(bpe.raw.get("post_processor"))


def _write_small_files(parent: Path, folder: Path, plan: Plan) -> list[str]:
    """config.json, generation_config.json and the tokenizer's files; returns notes for the user."""
    (folder / "config.json").write_bytes(config_json(plan.config))
    generation = _optional_json(parent / "generation_config.json")
    if generation:
        (folder / "generation_config.json").write_bytes(config_json(_renumbered(generation, plan.ids)))
    files, notes = tokenizer_files(parent, plan.ids)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [*plan.notes, *notes]


def _renumbered(value: Mapping[str, Any], ids: Renumbering | None) -> dict[str, Any]:
    done: dict[str, Any] = dict(value) if ids is None else renumber_config(dict(value), ids)
    return done


def _optional_json(path: Path) -> dict[str, Any]:
    return parse_json_object(path.read_bytes(), path) if path.is_file() else {}
