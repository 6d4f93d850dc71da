"""`mom inspect --domain`: importance scores of layers, neurons and vocabulary rows on a domain's text."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mom.display import console
from slices.architecture.anatomy import Anatomy, read_anatomy
from slices.checkpoint import Checkpoint
from slices.cut.pipeline import domain_text
from slices.cut.request import SliceRequest
from slices.families.table import FULL
from slices.model_ref import open_model
from slices.pictures.figure import check_plot_path
from slices.pictures.layers import plot_layer_scores
from slices.progress import Progress
from slices.scores.layers import LayerScore, layer_scores
from slices.scores.neurons import neuron_scores
from slices.text import domains
from slices.text.corpus import Corpus
from slices.text.token_counts import count_tokens
from slices.tokenizer.files import read_bpe

COVERAGE_ROWS = (1024, 4096, 16_384, 32_768)
_SHOWN_TOKENS = 12


def score(model: str, domain: str, corpus: tuple[Path, ...], plot: Path | None) -> dict[str, Any]:
    """The scores of MODEL on a domain's text, as `mom inspect --json` prints them under `scores`."""
    if plot is not None:
        check_plot_path(plot)
    checkpoint = open_model(model)
    anatomy = read_anatomy(checkpoint.config)
    with console.progress_bar() as progress:
        request = SliceRequest(domain=domain, layers="all", model=model, corpus=corpus)
        text = domain_text(checkpoint, domains.load(domain), request, progress).calibration()
        layers = layer_scores(checkpoint, anatomy, text, progress=progress)
        half_neurons = _half_neurons(checkpoint, anatomy, text, progress)
    if plot is not None:
        types = [layer.type for layer in anatomy.layers]
        plot_layer_scores(layers, types, f"{model} on {domain}", plot)
    return {
        "domain": domain,
        "text": {"source": text.source, "sha256": text.sha256, "bytes": text.nbytes},
        "layers": [_layer(each, anatomy, half_neurons) for each in layers],
        "tokens": _tokens(checkpoint, text),
        "plot": None if plot is None else str(plot),
    }


def show_scores(figures: dict[str, Any]) -> None:
    """The same as tables."""
    rows = [_row(each) for each in figures["layers"]]
    title = f"layers on {figures['domain']} ({console.size(figures['text']['bytes'])} of text)"
    columns = ["layer", "influence", "KL without it", "and the cheapest", "half of score in", "removable"]
    console.print_table(title, columns, rows)
    tokens = figures["tokens"]
    coverage = ", ".join(f"{int(rows):,} rows {share:.1%}" for rows, share in tokens["covered"].items())
    frequent = " ".join(repr(each["token"]) for each in tokens["most_frequent"])
    console.out.print(f"of the text's {tokens['count']:,} tokens: {coverage}", soft_wrap=True, markup=False)
    console.out.print(f"most frequent: {frequent}", soft_wrap=True, markup=False)


def _half_neurons(
    checkpoint: Checkpoint, anatomy: Anatomy, text: Corpus, progress: Progress
) -> dict[int, float]:
    """By layer, the fraction of its neurons, highest scores first, that holds half of the total score."""
    scores = neuron_scores(checkpoint, anatomy, text, progress)
    fractions = {}
    for layer, values in scores.items():
        summed = np.cumsum(np.sort(values.astype(np.float64))[::-1])
        fractions[layer] = float(np.searchsorted(summed, summed[-1] / 2) + 1) / len(values)
    return fractions


def _layer(score: LayerScore, anatomy: Anatomy, half_neurons: dict[int, float]) -> dict[str, Any]:
    layer = anatomy.layers[score.layer]
    donor = {"donor": layer.donor} if layer.shared else {}
    attention = "full" if layer.type == FULL else "sliding"
    half = round(half_neurons[score.layer], 4)
    return {**asdict(score), "type": attention, **donor, "half_of_neurons": half}


def _tokens(checkpoint: Checkpoint, text: Corpus) -> dict[str, Any]:
    """Coverage of the text by its most frequent tokens, and those tokens."""
    bpe = read_bpe(checkpoint.folder)
    counts = count_tokens(bpe, text).most_common()
    total = sum(count for _, count in counts)
    strings = {index: token for token, index in bpe.vocab.items()}
    return {
        "count": total,
        "distinct": len(counts),
        "covered": {str(rows): sum(n for _, n in counts[:rows]) / total for rows in COVERAGE_ROWS},
        "most_frequent": [
            {"token": strings.get(index, ""), "count": count} for index, count in counts[:_SHOWN_TOKENS]
        ],
    }


def _row(each: dict[str, Any]) -> list[str]:
    kl, second = each["kl"], each["kl_after_cheapest"]
    donor = f", K/V of {each['donor']}" if "donor" in each else ""
    return [
        f"{each['layer']} {each['type']}{donor}",
        f"{each['influence']:.4f}",
        f"{kl['value']:.4f} ± {kl['stderr']:.4f}",
        "cheapest" if second is None else f"{second['value']:.4f} ± {second['stderr']:.4f}",
        f"{each['half_of_neurons']:.0%}",
        "yes" if each["removable"] else "no",
    ]
