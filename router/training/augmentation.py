"""Training-data augmentation: perturbed copies of the queries, answer choices, snippets of domain corpora."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from router.training.perturbations import perturb_all

NO_SOURCE = -1  # the source query of an augmented text that derives from none
COPY_WEIGHT, CHOICES_WEIGHT = 0.3, 1.0  # sample weights, where a query weighs 1; measured in docs/log.md

Choices = Mapping[str, str]  # answer choices as one text, by question


@dataclass(frozen=True)
class AugmentedText:
    """A training text that is no query.

    `source` is the index of the query that it derives from: a head that is evaluated on that query must not
    have trained on the text either. `weight` is its sample weight.
    """

    text: str
    domain: str
    source: int = NO_SOURCE
    weight: float = COPY_WEIGHT


def augment(queries: Sequence[tuple[str, str]], choices: Choices) -> list[AugmentedText]:
    """Augmented texts of queries (text, domain): perturbed copies, questions with their choices, choices."""
    perturbed = perturb_all([text for text, _ in queries])
    augmented = [AugmentedText(text, queries[source][1], source) for text, source in perturbed]
    for source, (text, domain) in enumerate(queries):
        if text in choices:
            augmented.append(
                AugmentedText(
                    text=f"{text} {choices[text]}", domain=domain, source=source, weight=CHOICES_WEIGHT
                )
            )
            augmented.append(AugmentedText(choices[text], domain, source))
    return augmented
