"""The router that ships fitted, with the domains that a user adds, renames, merges or teaches more.

It lies in `router/pretrained`. `router.training.adapt` learns the user's own domain files in seconds;
the result is stored in `$MOM_HOME/router`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import router
from router.embedding.stack import embedder_names, open_embedders
from router.errors import BadRouter
from router.routing import store
from router.routing.model import Router
from router.training.adapt import adapt
from router.training.dataset import LabelledQuery
from router.training.example_queries import read_example_queries
from slices.home import shipped_configs
from slices.text import domains

FOLDER = Path(router.__file__).parent / "pretrained"


def load_default(embedder: str | None, folder: Path | None = None) -> Router | None:
    """The router that ships, adapted to the user's own domain files; None for another embedder.

    Args:
        folder: where the adapted router is stored, default `$MOM_HOME/router`.

    Raises:
        BadTraining: an own domain has too few queries.
        BadConfig: a domain file is wrong.
    """
    if not ships_for(embedder):
        return None
    names = own_domains()
    queries = read_example_queries(names)
    fitted = store.load(FOLDER)
    if queries:
        fitted = _adapted(fitted, embedder, queries, folder or store.default_folder())
    return replace(fitted, aliases=_aliases(names))


def ships_for(embedder: str | None) -> bool:
    """Whether a router ships for the settings' embedder."""
    if not (FOLDER / store.CONFIG).is_file():
        return False
    return store.read_config(FOLDER).embedders == embedder_names(embedder)


def own_domains() -> list[str]:
    """The names of the domains whose file is the user's own and not one that ships."""
    shipped = shipped_configs().resolve()
    return [name for name in domains.names() if not domains.path_of(name).resolve().is_relative_to(shipped)]


def _aliases(names: list[str]) -> Mapping[str, str]:
    return {replaced: name for name in names for replaced in domains.load(name).replaces}


def _adapted(fitted: Router, embedder: str | None, queries: list[LabelledQuery], folder: Path) -> Router:
    """The router with `queries` learned, from `folder` where it was stored before."""
    digest = _digest(fitted, queries)
    try:
        stored = store.load(folder)
    except BadRouter:
        stored = None
    if stored is not None and stored.queries_sha256 == digest:
        return stored
    adapted = replace(adapt(fitted, open_embedders(embedder), queries), queries_sha256=digest)
    store.save(adapted, folder)
    return store.load(folder)


def _digest(fitted: Router, queries: list[LabelledQuery]) -> str:
    lines = sorted(f"{query.domain}\x00{query.text}" for query in queries)
    text = "\x01".join([fitted.queries_sha256, *lines])
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
