"""`mom inspect --domain`: what a parent's layers, neurons and rows are worth on a domain's text."""

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
from slices.pictures.figure import check_picture
from slices.pictures.layers import draw_layers
from slices.scores.layers import LayerScore, layer_scores
from slices.scores.neurons import neuron_scores
from slices.text import domains
from slices.text.corpus import Corpus
from slices.text.token_counts import count_tokens
from slices.tokenizer.files import read_bpe

COVERED = (1024, 4096, 16_384, 32_768)
_SHOWN = 12  # of the most frequent tokens


def score(model: str, domain: str, corpus: tuple[Path, ...], plot: Path | None) -> dict[str, Any]:
    """The scores of MODEL on a domain's text, as `mom inspect --json` prints them under `scores`."""
    if plot is not None:
        check_picture(plot)
    checkpoint = open_model(model)
    anatomy = read_anatomy(checkpoint.config)
    with console.progress_bar() as report:
        request = SliceRequest(domain=domain, layers="all", model=model, corpus=corpus)
        text = domain_text(checkpoint, domains.load(domain), request, report).calibration()
        layers = layer_scores(checkpoint, anatomy, text, progress=lambda n, of: report("score layers", n, of))
        halves = _halves(checkpoint, anatomy, text, report)
    if plot is not None:
        types = [layer.type for layer in anatomy.layers]
        draw_layers(layers, types, f"{model} on {domain}", plot)
    return {
        "domain": domain,
        "text": {"source": text.source, "sha256": text.sha256, "bytes": text.nbytes},
        "layers": [_layer(each, anatomy, halves) for each in layers],
        "tokens": _tokens(checkpoint, text),
        "plot": None if plot is None else str(plot),
    }


def show_scores(figures: dict[str, Any]) -> None:
    """The same as tables."""
    rows = [_row(each) for each in figures["layers"]]
    title = f"layers on {figures['domain']} ({console.size(figures['text']['bytes'])} of text)"
    columns = ["layer", "influence", "KL without it", "after the cheapest", "half the weight in", "can go"]
    console.print_table(title, columns, rows)
    tokens = figures["tokens"]
    shares = ", ".join(f"{int(rows):,} rows {share:.1%}" for rows, share in tokens["covered"].items())
    often = " ".join(repr(each["token"]) for each in tokens["most_frequent"])
    console.out.print(f"of the text's {tokens['count']:,} tokens: {shares}", soft_wrap=True, markup=False)
    console.out.print(f"most frequent: {often}", soft_wrap=True, markup=False)


def _halves(
    checkpoint: Checkpoint, anatomy: Anatomy, text: Corpus, report: console.Report
) -> dict[int, float]:
    """The share of each layer's neurons, the best first, that holds half of the layer's importance."""
    scores = neuron_scores(checkpoint, anatomy, text, lambda n, of: report("score neurons", n, of))
    found = {}
    for layer, values in scores.items():
        summed = np.cumsum(np.sort(values.astype(np.float64))[::-1])
        found[layer] = float(np.searchsorted(summed, summed[-1] / 2) + 1) / len(values)
    return found


def _layer(score: LayerScore, anatomy: Anatomy, halves: dict[int, float]) -> dict[str, Any]:
    layer = anatomy.layers[score.layer]
    shared = {"donor": layer.donor} if layer.shared else {}
    kind = "full" if layer.type == FULL else "sliding"
    return {**asdict(score), "type": kind, **shared, "half_of_neurons": round(halves[score.layer], 4)}


def _tokens(checkpoint: Checkpoint, text: Corpus) -> dict[str, Any]:
    """How few rows the text needs, and which it needs most."""
    bpe = read_bpe(checkpoint.folder)
    counts = count_tokens(bpe, text).most_common()
    total = sum(count for _, count in counts)
    spelled = {index: token for token, index in bpe.vocab.items()}
    return {
        "count": total,
        "kinds": len(counts),
        "covered": {str(rows): sum(n for _, n in counts[:rows]) / total for rows in COVERED},
        "most_frequent": [
            {"token": spelled.get(index, ""), "count": count} for index, count in counts[:_SHOWN]
        ],
    }


def _row(each: dict[str, Any]) -> list[str]:
    cost, second = each["cost"], each["second"]
    shares = f", K/V of {each['donor']}" if "donor" in each else ""
    return [
        f"{each['layer']} {each['type']}{shares}",
        f"{each['influence']:.4f}",
        f"{cost['value']:.4f} ± {cost['stderr']:.4f}",
        "cheapest" if second is None else f"{second['value']:.4f} ± {second['stderr']:.4f}",
        f"{each['half_of_neurons']:.0%}",
        "yes" if each["removable"] else "no",
    ]
