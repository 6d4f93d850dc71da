"""Who answers the next turn of a conversation: the expert so far, unless the topic clearly moves.

A follow-up ("and why?") says little of its topic, so by itself it would go to the generalist. Pure.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce

from router.routing.decide import Decision
from router.routing.model import GENERAL

TURNS = 8  # of the user that are looked at, the last ones
CLEARLY = 0.25  # by how much a new domain's probability must lead the old one's
CHATTING = 0.5  # probability from which a question is a general one, whoever answered before


def converse(turns: Sequence[str], route: Callable[[str], Decision]) -> Decision:
    """Who answers the last of a user's turns, the oldest first; `route` says who answers each alone."""
    return settled([route(text) for text in turns[-TURNS:]])


def settled(turns: Sequence[Decision]) -> Decision:
    """The decision for the last of a user's turns, given what each says by itself, the oldest first."""
    return reduce(_after, turns)


def _after(held: Decision, turn: Decision) -> Decision:
    if held.fallback or turn.expert == held.expert or _moves(held, turn):
        return turn
    return replace(
        turn,
        expert=held.expert,
        domain=held.domain,
        fallback=False,
        reason=f"the conversation stays with {held.domain} (by itself: {turn.reason})",
    )


def _moves(held: Decision, turn: Decision) -> bool:
    """Whether this turn is clearly about something else than the one before."""
    if not turn.probabilities:  # there is nothing to route on
        return False
    if turn.fallback:
        return turn.domain == GENERAL and turn.confidence >= CHATTING
    return turn.confidence - turn.probabilities.get(held.domain, 0.0) >= CLEARLY
