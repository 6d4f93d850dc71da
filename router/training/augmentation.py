"""Texts beside the queries that tell a domain's words: disturbed copies, choices, pieces of its corpus."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from router.training.perturbations import noisy

NONE = -1  # the query of a hint that is made of none
COPY, ANSWERED = 0.3, 1.0  # what a hint counts, where a query counts 1; measured in docs/log.md

Answers = Mapping[str, str]  # what may be answered, by question


@dataclass(frozen=True)
class Hint:
    """A text of a domain. `of` is the query that it is made of, by its number: who is to be judged on that
    query must not have learned from the hint either."""

    text: str
    domain: str
    of: int = NONE
    counts: float = COPY


def hints_of(queries: Sequence[tuple[str, str]], answers: Answers) -> list[Hint]:
    """What can be made of queries (text, domain): disturbed copies, questions with their choices, choices."""
    found = [Hint(text, queries[at][1], at) for text, at in noisy([text for text, _ in queries])]
    for at, (text, domain) in enumerate(queries):
        if text in answers:
            found.append(Hint(f"{text} {answers[text]}", domain, at, ANSWERED))
            found.append(Hint(answers[text], domain, at))
    return found
