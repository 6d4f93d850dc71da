"""`mom route eval`: the router on labelled queries, and refits without one source or one form of them."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from mom.display import console
from router import settings
from router.embedding.embedder import Embedder
from router.embedding.stack import open_embedders
from router.embedding.vector_cache import VectorCache
from router.routing.cascade import Cascade, RoutePredictor
from router.routing.model import Router
from router.serving import build
from router.settings import Settings, override_thresholds
from router.training.dataset import LabelledQuery, read_choices, read_corpus_snippets, read_queries
from router.training.evaluate import RouteReport, evaluate
from router.training.fit import fit
from router.training.html_report import page
from router.training.leave_one_out import Group, HeldOutAccuracy, Refit, leave_one_out
from slices.files import atomic


def evaluate_router(
    data: Path, config: Path | None, by_source: bool = False, by_form: bool = False
) -> RouteReport:
    """Evaluate the router on the labelled queries of `data`.

    Args:
        by_source: also fit and judge a router without each source of `data`.
        by_form: the same without each form of the domains' example queries.

    Raises:
        BadTraining: the data cannot be read, or has nothing to leave out.
    """
    loaded = settings.read(config)
    queries = read_queries(data)
    router = build.load_or_fit_router(loaded, build.domain_queries())
    report = evaluate(queries, router, build.open_cascade(router, loaded))
    examples = _example_queries()
    return replace(
        report,
        leave_one_source_out=_left_out(loaded, queries, _source, data, examples) if by_source else None,
        leave_one_form_out=_left_out(loaded, examples, _form) if by_form else None,
    )


def write_html(report: RouteReport, out: Path) -> None:
    """Write the report as one HTML file."""
    atomic.write_text(out, page(asdict(report)))


def _example_queries() -> list[LabelledQuery]:
    domains = build.domain_queries()
    return [LabelledQuery(text, domain) for domain, texts in domains.items() for text in texts]


def _left_out(
    loaded: Settings,
    queries: Sequence[LabelledQuery],
    group: Group,
    data: Path | None = None,
    always: Sequence[LabelledQuery] = (),
) -> dict[str, HeldOutAccuracy]:
    """Accuracy by group that was left out of a fit. `data` has answer choices and corpora, as in a fit."""
    with console.progress_bar() as progress:
        embedders = open_embedders(loaded.embedder, progress)
        cache = VectorCache(embedders[-1])  # embeds each text once for all fits
        refit = _refit(loaded, [*embedders[:-1], cache], data)
        return leave_one_out(queries, group, refit, progress, always)


def _refit(loaded: Settings, embedders: Sequence[Embedder], data: Path | None) -> Refit:
    """Fits as `mom route fit --data` does, with the settings' thresholds."""
    choices = read_choices(data) if data else {}

    def refit(queries: list[LabelledQuery]) -> tuple[Router, RoutePredictor]:
        domains = {query.domain for query in queries}
        snippets = read_corpus_snippets(data, domains) if data else []
        pairs = [(query.text, query.domain) for query in queries]
        router = fit(pairs, embedders, snippets=snippets, choices=choices)
        router = override_thresholds(router, loaded.thresholds)
        return router, Cascade(router, embedders)

    return refit


def _source(query: LabelledQuery) -> str | None:
    return query.source


def _form(query: LabelledQuery) -> str | None:
    return query.form
