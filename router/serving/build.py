"""The fitted router there is, or a new one: what `mom route fit` and the start of the service do.

This is the edge where domain files, the embedder and the stored router meet; the parts know nothing
of each other.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from router.embedding.embedder import Embedder
from router.embedding.stack import embedder_names, open_embedders
from router.embedding.vector_cache import VectorCache
from router.errors import BadRouter
from router.experts.catalogue import Catalogue
from router.experts.catalogue import read as read_catalogue
from router.routing import store
from router.routing.cascade import Cascade
from router.routing.decide import Decision
from router.routing.model import Router
from router.routing.route import route
from router.settings import Settings, with_cutoffs
from router.training.augmentation import Answers
from router.training.fit import Pairs, digest, fit
from slices import manifest
from slices.text import domains as domain_files

Queries = Mapping[str, Sequence[str]]


def domain_queries() -> dict[str, list[str]]:
    """The queries of every domain file that has some, by domain."""
    loaded = [domain_files.load(name) for name in domain_files.names()]
    return {domain.name: domain.queries for domain in loaded if domain.queries}


def fit_from_domains(
    domains: Queries,
    embedders: Sequence[Embedder],
    out: Path | None = None,
    hints: Pairs = (),
    answers: Answers = MappingProxyType({}),
) -> Router:
    """Fit a router on `domains` (queries by domain) and store it in `out` (default `$MOM_HOME/router`).

    Args:
        hints: other texts by domain, (text, domain); this and the next as in `router.training.fit.fit`.
        answers: the choices of some of the queries.

    Raises:
        BadTraining: too few domains or queries.
    """
    cache = VectorCache(embedders[-1])
    router = fit(_pairs(domains), [*embedders[:-1], cache], hints=hints, answers=answers)
    cache.save()
    store.save(router, out or store.default_folder())
    return router


def current_router(settings: Settings, domains: Queries) -> Router:
    """The router to serve with. A folder named in `settings` is used as it is; the default one is
    fitted anew when it is absent, damaged, of another embedder, or of other queries than `domains`.

    Raises:
        BadRouter: the named folder holds no usable router.
        BadTraining: `domains` cannot train one.
    """
    if settings.router is not None:
        return with_cutoffs(store.load(settings.router), settings.thresholds)
    found = _stored(embedder_names(settings.embedder), digest(_pairs(domains)))
    router = found or fit_from_domains(domains, open_embedders(settings.embedder))
    return with_cutoffs(router, settings.thresholds)


def served_by(settings: Settings) -> Catalogue:
    """The experts that the settings name, and who has which domain.

    Raises:
        BadExperts: there are none, or they do not fit together.
    """
    names = None if settings.experts == "all" else settings.experts
    policy = settings.policy.policy()
    return read_catalogue(names, settings.generalist, settings.type, settings.slices, policy)


def explain(text: str, settings: Settings, domains: Queries | None = None) -> Decision:
    """Who would answer `text`. Before any slice exists, each domain counts as an expert of its name."""
    router = current_router(settings, domain_queries() if domains is None else domains)
    reader = reader_of(router, settings)
    if settings.experts == "all" and not manifest.all_slices(settings.slices):
        return route(text, reader, router.thresholds, {name: name for name in router.classes}, "general")
    served = served_by(settings)
    return route(text, reader, router.thresholds, served.by_domain, served.generalist, served.disabled_reason)


def reader_of(router: Router, settings: Settings) -> Cascade:
    """The router with the embedders that it was fitted on.

    Raises:
        BadRouter: the settings name others, or they give other vectors now.
    """
    embedders = open_embedders(settings.embedder)
    store.check_embedders(router, embedders)
    return Cascade(router, embedders)


def _stored(embedders: tuple[str, ...], queries_sha256: str) -> Router | None:
    try:
        router = store.load(store.default_folder())
    except BadRouter:
        return None
    fresh = (router.embedders, router.queries_sha256) == (embedders, queries_sha256)
    return router if fresh else None


def _pairs(domains: Queries) -> list[tuple[str, str]]:
    return [(text, domain) for domain, texts in domains.items() for text in texts]
