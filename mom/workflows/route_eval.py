"""`mom route eval`: the router on labelled queries, and refits without one source or one form of them."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from mom.display import console
from router import settings
from router.embedding.embedder import Embedder
from router.embedding.stack import open_embedders
from router.embedding.vector_cache import VectorCache
from router.errors import BadExperts
from router.experts.catalogue import Catalogue
from router.routing.cascade import Cascade, RoutePredictor
from router.routing.model import Router
from router.routing.prediction_cache import PredictionCache
from router.routing.route import route
from router.serving import build
from router.settings import Settings, override_thresholds
from router.training.dataset import LabelledQuery, read_choices, read_corpus_snippets, read_queries
from router.training.decision_cost import DecisionCost, decision_cost
from router.training.decisions import of_known_domains
from router.training.evaluate import RouteReport, evaluate
from router.training.example_queries import read_example_queries
from router.training.fit import fit_labelled
from router.training.html_report import page
from router.training.leave_one_out import Group, HeldOutAccuracy, Refit, leave_one_out
from slices import manifest
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
    router = build.load_or_fit_router(loaded)
    cascade = build.open_cascade(router, loaded)
    report = evaluate(queries, router, cascade)
    examples = _example_queries()
    return replace(
        report,
        leave_one_source_out=_left_out(loaded, queries, _source, data, examples) if by_source else None,
        leave_one_form_out=_left_out(loaded, examples, _form) if by_form else None,
        cost=_served_cost(loaded, router, cascade, queries),
    )


def write_html(report: RouteReport, out: Path) -> None:
    """Write the report as one HTML file."""
    atomic.write_text(out, page(asdict(report)))


def _example_queries() -> list[LabelledQuery]:
    return read_example_queries()


def _served_cost(
    loaded: Settings, router: Router, cascade: Cascade, queries: Sequence[LabelledQuery]
) -> DecisionCost | None:
    """The cost of the decisions with the slices that are served; None where none was measured."""
    if loaded.experts == "all" and not manifest.all_slices(loaded.slices):
        return None
    try:
        served = build.served_catalogue(loaded)
    except BadExperts as error:
        console.warn(f"the cost of the decisions is not known: {error}")
        return None
    if not served.costs.models:
        return None
    known = of_known_domains(queries, router)
    chosen = _served_experts([query.text for query in known], router, cascade, served, loaded)
    return decision_cost(known, chosen, served.generalist, served.costs)


def _served_experts(
    texts: Sequence[str], router: Router, cascade: Cascade, served: Catalogue, loaded: Settings
) -> list[str]:
    """The expert of each text, as the service would choose it."""
    predictor = PredictionCache(cascade, size=len(texts) + 1)
    predictor.predict(texts)  # in one batch
    misfit = build.vocabulary_fit(served, loaded).misfit
    return [
        route(
            text,
            predictor,
            router.thresholds,
            served.by_domain,
            served.generalist,
            served.disabled_reason,
            served.costs,
            misfit,
        ).expert
        for text in texts
    ]


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
        router = fit_labelled(queries, embedders, snippets, choices)
        router = override_thresholds(router, loaded.thresholds)
        return router, Cascade(router, embedders)

    return refit


def _source(query: LabelledQuery) -> str | None:
    return query.source


def _form(query: LabelledQuery) -> str | None:
    return query.form
