"""From a text to a decision: embed, then decide. The one path that serving and explaining share."""

from collections.abc import Mapping

from router.decide import GENERAL, NOTHING, Decision, Router, decide
from router.embed import Embedder


def route(
    text: str,
    router: Router,
    embedder: Embedder,
    experts: Mapping[str, str],
    generalist: str,
    barred: Mapping[str, str] = NOTHING,
) -> Decision:
    """Who answers `text`; the other arguments are `router.decide.decide`'s. Blocks while it embeds."""
    if not text.strip():
        return Decision(generalist, GENERAL, 0.0, 0.0, 0.0, True, "there is nothing to route on", {})
    return decide(embedder.embed([text])[0], router, experts, generalist, barred)


def by_name(expert: str, domain: str) -> Decision:
    """The decision the caller took by naming an expert."""
    return Decision(expert, domain, 1.0, 0.0, 0.0, False, "asked for by name", {})
