"""`mom route tune|fit|explain`: fine-tune the encoder, fit and query the router."""

import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mom.display import console
from router import settings
from router.embedding.sentence import encoder_name
from router.embedding.stack import open_embedders
from router.embedding.vector_cache import VectorCache
from router.errors import BadSettings
from router.routing import store
from router.serving import build
from router.serving.default_router import ships_for
from router.training.dataset import LabelledQuery, read_choices, read_corpus_snippets, read_queries
from router.training.example_queries import read_example_queries
from router.training.finetune import FinetuneConfig, finetune
from router.training.fit import fit_labelled
from router.training.weighting import clean
from slices.text import domains


def fit_router(
    data: Path | None, out: Path | None, config: Path | None, all_classes: bool = False
) -> dict[str, Any]:
    """Fit a router on the domains' example queries and `data`, and store it.

    Args:
        all_classes: also fit the domains of `data` that have no domain file, which no expert serves.
    """
    loaded = settings.read(config)
    if (data or ships_for(loaded.embedder)) and not (out or loaded.router):
        raise BadSettings(
            "a fitted router needs a folder of its own: give -o DIR, and `router: DIR` in serve.yaml"
        )
    folder = out or loaded.router or store.default_folder()
    with console.progress_bar() as progress:
        embedders = open_embedders(loaded.embedder, progress)
    classes = None if all_classes else domains.names()
    queries = clean(_queries(data), classes)
    counts = Counter(query.domain for query in queries)
    snippets = read_corpus_snippets(data, set(counts)) if data else []
    choices = read_choices(data) if data else {}
    cache = VectorCache(embedders[-1])
    router = fit_labelled(queries, [*embedders[:-1], cache], snippets, choices)
    cache.save()
    store.save(router, folder)
    return {
        "path": str(folder),
        "embedder": router.embedders[-1],
        "embedders": list(router.embedders),
        "corpus_snippets": len(snippets),
        "queries_with_choices": len(choices),
        "domains": dict(sorted(counts.items())),
        "thresholds": asdict(router.thresholds),
    }


def finetune_encoder(
    data: Path | None,
    out: Path,
    config: Path | None,
    finetune_config: FinetuneConfig,
    device: str,
    force: bool,
) -> dict[str, Any]:
    """Fine-tune the encoder of the settings on the domains' example queries and `data`, into `out`."""
    loaded = settings.read(config)
    queries = [(query.text, query.domain) for query in clean(_queries(data), domains.names())]
    start = time.monotonic()
    with console.progress_bar() as progress:
        accuracy = finetune(
            queries,
            loaded.embedder,
            out,
            config=finetune_config,
            device=device,
            progress=progress,
            on_evaluate=_print_accuracy,
            force=force,
        )
    return {
        "path": str(out),
        "name": encoder_name(str(out)),
        "queries": len(set(queries)),
        "holdout_accuracy": accuracy,
        "seconds": time.monotonic() - start,
    }


def _print_accuracy(epoch: int, accuracy: float) -> None:
    console.err.print(f"epoch {epoch}: holdout accuracy {accuracy:.3f}")


def show_finetuned(result: dict[str, Any]) -> None:
    """The final holdout accuracy, and how to use the encoder."""
    accuracy, path = result["holdout_accuracy"][-1], result["path"]
    console.out.print(
        f"{result['name']} -> {path}: holdout accuracy {accuracy:.3f} ({result['seconds']:.0f} s)."
        f" To use it, set `embedder: {path}` in serve.yaml.",
        markup=False,
        soft_wrap=True,
    )


def _queries(data: Path | None) -> list[LabelledQuery]:
    """The domains' example queries and those of `data`."""
    return [*read_example_queries(), *(read_queries(data) if data else ())]


def show_fit(result: dict[str, Any]) -> None:
    """The number of training queries of each domain."""
    rows = [[name, str(count)] for name, count in result["domains"].items()]
    console.print_table(f"router -> {result['path']} ({result['embedder']})", ["domain", "queries"], rows)


def explain(text: str, config: Path | None) -> dict[str, Any]:
    """The routing decision for `text`."""
    return asdict(build.explain(text, settings.read(config)))


def show_decision(decision: dict[str, Any]) -> None:
    """The expert, the reason, the most probable domains, and the expected costs, the least first."""
    top = Counter(decision["probabilities"]).most_common(4)
    console.out.print(f"{decision['expert']}: {decision['reason']}", markup=False, soft_wrap=True)
    probabilities = ", ".join(f"{name} {100 * probability:.0f} %" for name, probability in top)
    console.out.print(probabilities, markup=False)
    if len(decision["costs"]) > 1:
        ordered = sorted(decision["costs"].items(), key=lambda item: item[1])
        costs = ", ".join(f"{name} {100 * cost:+.1f} %" for name, cost in ordered)
        console.out.print(f"expected cost: {costs}", markup=False, soft_wrap=True)
