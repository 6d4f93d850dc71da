"""Loads the fitted router or fits a new one, for `mom route` and the start of the service.

Domain files, embedders and the stored router meet here; the parts know nothing of each other.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from router.embedding.embedder import Embedder
from router.embedding.stack import embedder_names, open_embedders
from router.embedding.vector_cache import VectorCache
from router.errors import BadRouter
from router.experts import catalogue
from router.experts.catalogue import Catalogue
from router.experts.vocabulary_fit import VocabularyFit
from router.routing import store
from router.routing.cascade import Cascade
from router.routing.decide import Decision
from router.routing.model import Router
from router.routing.route import route
from router.serving.default_router import load_default
from router.settings import Settings, override_thresholds
from router.training.example_queries import read_example_queries
from router.training.fit import digest, fit
from slices import manifest

Queries = Mapping[str, Sequence[str]]


def domain_queries() -> dict[str, list[str]]:
    """The example queries of every domain that has some, by domain."""
    texts: dict[str, list[str]] = {}
    for query in read_example_queries():
        texts.setdefault(query.domain, []).append(query.text)
    return texts


def fit_from_domains(domains: Queries, embedders: Sequence[Embedder], out: Path | None = None) -> Router:
    """Fit a router on `domains` (queries by domain) and store it in `out` (default `$MOM_HOME/router`).

    Raises:
        BadTraining: too few domains or queries.
    """
    cache = VectorCache(embedders[-1])
    router = fit(_pairs(domains), [*embedders[:-1], cache])
    cache.save()
    store.save(router, out or store.default_folder())
    return router


def load_or_fit_router(settings: Settings, domains: Queries | None = None) -> Router:
    """The router to serve with. A folder named in `settings` is loaded as it is; by default the router that
    ships is, with the user's own domains. For another embedder or for given `domains` one is fitted, and
    again where it is missing, damaged, of other embedders, or of other queries.

    Args:
        domains: queries by domain, default the domains' example queries.

    Raises:
        BadRouter: the named folder holds no usable router.
        BadTraining: `domains` cannot train one.
    """
    if settings.router is not None:
        return override_thresholds(store.load(settings.router), settings.thresholds)
    shipped = load_default(settings.embedder) if domains is None else None
    if shipped is not None:
        return override_thresholds(shipped, settings.thresholds)
    domains = domain_queries() if domains is None else domains
    stored = _stored(embedder_names(settings.embedder), digest(_pairs(domains)))
    router = stored or fit_from_domains(domains, open_embedders(settings.embedder))
    return override_thresholds(router, settings.thresholds)


def served_catalogue(settings: Settings) -> Catalogue:
    """The experts that the settings name, and their domains.

    Raises:
        BadExperts: there are none, or they do not fit together.
    """
    names = None if settings.experts == "all" else settings.experts
    policy = settings.policy.policy()
    return catalogue.read(names, settings.generalist, settings.type, settings.slices, policy)


def explain(text: str, settings: Settings, domains: Queries | None = None) -> Decision:
    """The routing decision for `text`. Before any slice exists, each domain counts as an expert."""
    router = load_or_fit_router(settings, domains)
    cascade = open_cascade(router, settings)
    if settings.experts == "all" and not manifest.all_slices(settings.slices):
        return route(text, cascade, router.thresholds, {name: name for name in router.domains}, "general")
    served = served_catalogue(settings)
    return route(
        text,
        cascade,
        router.thresholds,
        served.by_domain,
        served.generalist,
        served.disabled_reason,
        served.costs,
        vocabulary_fit(served, settings).misfit,
    )


def vocabulary_fit(served: Catalogue, settings: Settings) -> VocabularyFit:
    """The check of queries against the experts' vocabularies, as the settings limit it."""
    folders = {name: expert.folder for name, expert in served.experts.items()}
    return VocabularyFit(folders, served.generalist, settings.policy.max_token_ratio)


def open_cascade(router: Router, settings: Settings) -> Cascade:
    """The router with the embedders that it was fitted on.

    Raises:
        BadRouter: the settings name others, or they give other vectors now.
    """
    embedders = open_embedders(settings.embedder)
    store.check_embedders(router, embedders)
    return Cascade(router, embedders)


def _stored(embedders: tuple[str, ...], queries_sha256: str) -> Router | None:
    """The router in the default folder, unless it is missing, damaged or stale."""
    try:
        router = store.load(store.default_folder())
    except BadRouter:
        return None
    current = (router.embedders, router.queries_sha256) == (embedders, queries_sha256)
    return router if current else None


def _pairs(domains: Queries) -> list[tuple[str, str]]:
    return [(text, domain) for domain, texts in domains.items() for text in texts]
