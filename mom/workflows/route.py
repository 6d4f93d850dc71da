"""`mom route tune|fit|explain|eval`: tune the encoder, fit the router, ask it, measure it."""

import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mom.display import console
from router import settings
from router.embedding.sentence import encoder_name
from router.embedding.stack import open_embedders
from router.errors import BadSettings
from router.routing import store
from router.routing.model import GENERAL
from router.serving import build
from router.training import finetune as tuning_of
from router.training.dataset import OOD, read_answers, read_hints, read_queries
from router.training.evaluate import RouteReport, evaluate
from router.training.finetune import News, Tuning
from router.training.html_report import page
from slices.files import atomic


def fit(data: Path | None, out: Path | None, config: Path | None) -> dict[str, Any]:
    """Fit a router on the domains' example queries and `data`, and store it."""
    chosen = settings.read(config)
    if data and not (out or chosen.router):
        raise BadSettings(
            "a router fitted on --data needs a place of its own: give -o DIR, and `router: DIR` in serve.yaml"
        )
    queries = _queries(data)
    folder = out or chosen.router or store.default_folder()
    with console.progress_bar() as report:
        embedders = open_embedders(chosen.embedder, report)
    hints = read_hints(data, set(queries)) if data else []
    answers = read_answers(data) if data else {}
    router = build.fit_from_domains(queries, embedders, folder, hints, answers)
    return {
        "path": str(folder),
        "embedder": router.embedders[-1],
        "embedders": list(router.embedders),
        "hints": len(hints),
        "with_choices": len(answers),
        "domains": {name: len(texts) for name, texts in sorted(queries.items())},
        "thresholds": asdict(router.thresholds),
    }


def tune(
    data: Path | None, out: Path, config: Path | None, tuning: Tuning, device: str, force: bool
) -> dict[str, Any]:
    """Tune the encoder of the settings on the domains' example queries and `data`, and write it to `out`."""
    chosen = settings.read(config)
    queries = [(text, domain) for domain, texts in _queries(data).items() for text in texts]
    begun = time.monotonic()
    with console.progress_bar() as report:

        def told(news: News) -> None:
            report("tune", news.step, news.of)
            if news.accuracy is not None:
                console.err.print(
                    f"step {news.step} of {news.of}: {news.accuracy:.3f} of unseen queries right"
                )

        curve = tuning_of.tune(queries, chosen.embedder, out, tuning, device, told, force)
    return {
        "path": str(out),
        "name": encoder_name(str(out)),
        "queries": len(set(queries)),
        "accuracy": curve,
        "seconds": time.monotonic() - begun,
    }


def show_tuned(figures: dict[str, Any]) -> None:
    """What came of it, and how to use it."""
    share, path = figures["accuracy"][-1], figures["path"]
    console.out.print(
        f"{figures['name']} -> {path}: {share:.3f} of the queries kept back are told right"
        f" ({figures['seconds']:.0f} s). To use it, put `embedder: {path}` into serve.yaml.",
        markup=False,
        soft_wrap=True,
    )


def _queries(data: Path | None) -> dict[str, list[str]]:
    """The domains' example queries and those of `data`, by domain."""
    queries = build.domain_queries()
    for text, domain in read_queries(data) if data else ():
        queries.setdefault(GENERAL if domain == OOD else domain, []).append(text)
    return queries


def show_fit(figures: dict[str, Any]) -> None:
    """How many queries of which domain went in."""
    rows = [[name, str(count)] for name, count in figures["domains"].items()]
    console.print_table(f"router -> {figures['path']} ({figures['embedder']})", ["domain", "queries"], rows)


def explain(text: str, config: Path | None) -> dict[str, Any]:
    """Who would answer `text`, and why."""
    return asdict(build.explain(text, settings.read(config)))


def show_decision(figures: dict[str, Any]) -> None:
    """The decision in a sentence, and what else was likely."""
    likely = Counter(figures["probabilities"]).most_common(4)
    console.out.print(f"{figures['expert']}: {figures['reason']}", markup=False, soft_wrap=True)
    console.out.print(", ".join(f"{name} {100 * chance:.0f} %" for name, chance in likely), markup=False)


def measure(data: Path, config: Path | None) -> RouteReport:
    """How well the router routes the labelled queries of `data`."""
    chosen = settings.read(config)
    router = build.current_router(chosen, build.domain_queries())
    return evaluate(read_queries(data), router, build.reader_of(router, chosen))


def write_page(report: RouteReport, out: Path) -> None:
    """The figures and their pictures as one HTML file."""
    atomic.write_text(out, page(asdict(report)))


def show_measured(report: RouteReport) -> None:
    """The headline figures."""
    rows = [
        ["queries", str(report.n)],
        ["accuracy", f"{report.accuracy:.3f} ± {report.stderr:.3f}"],
        ["right expert, or rightly none", f"{report.routed:.3f}"],
        ["calibration error", f"{report.ece:.3f}"],
        ["experts' questions that an expert gets", _share(report.accepted)],
        ["out-of-domain AUROC", _share(report.ood_auroc)],
        ["out-of-domain recall", _share(report.ood_recall)],
        ["out-of-domain recall at 95 % acceptance", _share(report.ood_recall_at_95)],
        *([f"decisions that survive: {kind}", _share(value)] for kind, value in report.survived.items()),
        *([f"decided by {name}", _share(value)] for name, value in report.decided_by.items()),
        *([f"latency {name}, ms", f"{value:.1f}"] for name, value in report.latency_ms.items()),
    ]
    console.print_table("router", ["", "value"], rows)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
