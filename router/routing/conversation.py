"""Routing of a multi-turn conversation: the current expert is kept unless the topic clearly changes.

A follow-up ("and why?") carries little topic, so by itself it would go to the generalist. Pure.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce

from router.routing.decide import Decision
from router.routing.model import GENERAL
from router.routing.route import Misfit, no_misfit

MAX_TURNS = 8  # of the user that are considered, the last ones
SWITCH_MARGIN = 0.25  # of a new domain's probability over the current one's
GENERAL_CONFIDENCE = 0.5  # from which a general question leaves the current expert


def route_conversation(
    turns: Sequence[str], route: Callable[[str], Decision], misfit: Misfit = no_misfit
) -> Decision:
    """The decision for the last of a user's turns, oldest first.

    Args:
        route: decides on a single turn.
        misfit: why a text does not fit an expert; the conversation does not stay with such an expert.
    """
    decisions = [route(text) for text in turns[-MAX_TURNS:]]
    merged, alone = merge_decisions(decisions), decisions[-1]
    if merged.expert == alone.expert or (reason := misfit(turns[-1], merged.expert)) is None:
        return merged
    return replace(alone, reason=f"{alone.reason}; the conversation was with {merged.expert}, but {reason}")


def merge_decisions(turns: Sequence[Decision]) -> Decision:
    """The decision for the last of a user's turns, from the decisions on each turn alone, oldest first."""
    return reduce(_next_decision, turns)


def _next_decision(current: Decision, turn: Decision) -> Decision:
    if current.fallback or turn.expert == current.expert or _changes_topic(current, turn):
        return turn
    return replace(
        turn,
        expert=current.expert,
        domain=current.domain,
        fallback=False,
        reason=f"conversation stays with {current.domain} (this turn alone: {turn.reason})",
    )


def _changes_topic(current: Decision, turn: Decision) -> bool:
    """Whether this turn is clearly of another domain than the conversation so far."""
    if not turn.probabilities:  # an empty turn
        return False
    if turn.fallback:
        return turn.domain == GENERAL and turn.confidence >= GENERAL_CONFIDENCE
    return turn.confidence - turn.probabilities.get(current.domain, 0.0) >= SWITCH_MARGIN
