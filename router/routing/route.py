"""From a text to a decision: read, then decide. The one path that serving, explaining and measuring share."""

from collections.abc import Mapping

from router.routing.cascade import Reader
from router.routing.decide import NOTHING, Decision, decide
from router.routing.model import GENERAL, Thresholds


def route(
    text: str,
    reader: Reader,
    limits: Thresholds,
    experts: Mapping[str, str],
    generalist: str,
    disabled_reason: Mapping[str, str] = NOTHING,
) -> Decision:
    """Who answers `text`; the other arguments are `decide`'s. Blocks while it embeds."""
    if not text.strip():
        return Decision(generalist, GENERAL, 0.0, 0.0, 0.0, True, "there is nothing to route on", {})
    return decide(reader.read([text])[0], limits, experts, generalist, disabled_reason)


def by_name(expert: str, domain: str) -> Decision:
    """The decision the caller took by naming an expert."""
    return Decision(expert, domain, 1.0, 0.0, 0.0, False, "asked for by name", {})
