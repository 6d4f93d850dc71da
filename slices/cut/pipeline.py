"""The pipeline of a cut: checkpoint, anatomy, layers, domain text, rows, plan, extract, manifest."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from slices import manifest
from slices.architecture.anatomy import Anatomy, read_anatomy
from slices.architecture.constraints import ffn_width, nearest_valid_layers
from slices.architecture.layer_spec import is_auto, parse_auto_count, select_layers
from slices.architecture.window import resolve_rope_theta
from slices.checkpoint import Checkpoint, read_optional_json
from slices.cut.extract import extract
from slices.cut.manifest_entry import build_manifest
from slices.cut.neurons import choose_neurons
from slices.cut.plan import Plan, Selection, check_cut, make_plan
from slices.cut.request import FfnRank, SliceRequest
from slices.cut.slice_config import config_json
from slices.cut.text_rows import rows_for_text
from slices.errors import NotFound
from slices.files import atomic
from slices.files.disk_space import check_free_space, map_full_disk_error
from slices.model_ref import open_model
from slices.progress import Progress, no_progress
from slices.scores.neurons import neuron_scores
from slices.scores.removal import auto_layers, remaining_layers
from slices.text import domains
from slices.text.corpus import Corpus, read_corpus
from slices.text.synthetic import generate_corpus
from slices.tokenizer.files import TokenIdMap, remap_token_ids, tokenizer_files


def cut(request: SliceRequest, progress: Progress = no_progress) -> manifest.Manifest:
    """Make the slice and return its manifest, which is written last.

    Raises:
        Exists: the target is there and `force` is false.
        SliceError: as `plan_cut`; or the disk is too small.
    """
    started = time.monotonic()
    atomic.refuse_existing(request.target, request.force)
    checkpoint, plan, text = plan_cut(request, progress)
    check_free_space(request.target, plan.nbytes, "the slice")
    with map_full_disk_error(request.target), atomic.staged(request.target, request.force) as folder:
        folder.mkdir()
        extract(plan, folder, progress)
        notes = _write_small_files(checkpoint.folder, folder, plan)
        made = build_manifest(request, checkpoint, plan, text, notes, time.monotonic() - started)
        manifest.write(folder, made)
    return made


def plan_cut(
    request: SliceRequest, progress: Progress = no_progress, measure: bool = True
) -> tuple[Checkpoint, Plan, Corpus | None]:
    """Everything up to the plan: nothing is written but the caches of the parent's own text and scores.

    Args:
        measure: false plans some neurons and rows rather than the best: as many bytes, no run of the parent.

    Returns:
        The checkpoint, the plan, and the calibration text (None: nothing was chosen by text).

    Raises:
        SliceError: the model, domain or corpus is missing or damaged, or the cut is invalid.
    """
    domain = domains.load(request.domain)
    checkpoint = open_model(request.model)
    if not checkpoint.entries:
        raise NotFound(f"{checkpoint.folder} holds no weights: expected model.safetensors or its index")
    anatomy = read_anatomy(checkpoint.config)
    width = ffn_width(anatomy, request.ffn)
    theta = resolve_rope_theta(anatomy, request.attention, request.rope_theta)
    text = None
    if is_auto(request.layers):
        keep = parse_auto_count(request.layers, len(anatomy.layers))
        text = domain_text(checkpoint, domain, request, progress).calibration()
        selection = _scored_layers(request, checkpoint, anatomy, text, keep, progress)
    else:
        selection = _requested_layers(request, anatomy)
    selection = replace(selection, theta=theta)
    check_cut(checkpoint, anatomy, selection)
    ranked = measure and width is not None and request.ffn_rank == FfnRank.SCORES
    if text is None and (ranked or _rows_need_text(request, domain, measure)):
        text = domain_text(checkpoint, domain, request, progress).calibration()
    rows = rows_for_text(request.vocab, checkpoint, anatomy, text, progress)
    scores = None
    if ranked and text is not None:
        scores = neuron_scores(checkpoint, anatomy, text, progress)
    neurons = choose_neurons(anatomy, selection.layers, width, request.ffn_rank, request.seed, scores)
    return checkpoint, make_plan(checkpoint, anatomy, replace(selection, rows=rows, neurons=neurons)), text


def domain_text(
    checkpoint: Checkpoint, domain: domains.Domain, request: SliceRequest, progress: Progress = no_progress
) -> Corpus:
    """All of the domain's text: `--corpus`, else the domain's own files, else written by the parent."""
    paths = request.corpus or tuple(domain.corpus)
    return read_corpus(paths) if paths else generate_corpus(checkpoint, domain, request.seed, progress)


def _requested_layers(request: SliceRequest, anatomy: Anatomy) -> Selection:
    """The layers of a spec other than auto, repaired if the request says so."""
    layers = select_layers(request.layers, [layer.type for layer in anatomy.layers])
    repair = None
    if request.repair:
        layers, repair = nearest_valid_layers(anatomy, layers)
    return Selection(layers, portable=request.portable, repair=repair)


def _scored_layers(
    request: SliceRequest,
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    text: Corpus,
    keep: int | None,
    progress: Progress,
) -> Selection:
    """The layers that `auto` (`keep` None) or `auto:N` keeps, by their scores on the text."""
    removed = auto_layers(checkpoint, anatomy, text, keep, progress)
    return Selection(remaining_layers(anatomy, removed), portable=request.portable, removed=removed)


def _rows_need_text(request: SliceRequest, domain: domains.Domain, measure: bool) -> bool:
    """Whether the rows depend on text; their number alone does only where the text decides it."""
    if request.vocab == "all":
        return False
    return measure or request.vocab == "domain" or bool(request.corpus or domain.corpus)


def _write_small_files(parent: Path, folder: Path, plan: Plan) -> list[str]:
    """config.json, generation_config.json and the tokenizer's files; returns notes for the user."""
    (folder / "config.json").write_bytes(config_json(plan.config))
    generation = read_optional_json(parent / "generation_config.json")
    if generation:
        data = config_json(_remapped(generation, plan.token_ids))
        (folder / "generation_config.json").write_bytes(data)
    files, notes = tokenizer_files(parent, plan.token_ids)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [*plan.notes, *notes]


def _remapped(config: Mapping[str, Any], ids: TokenIdMap | None) -> dict[str, Any]:
    remapped: dict[str, Any] = dict(config) if ids is None else remap_token_ids(dict(config), ids)
    return remapped
