"""Which expert answers: a pure function from a vector to a decision, with the reason in words.

The domain, and whether the question is general, come from a linear head; the distance to the nearest
known question catches what is like nothing the head has seen. Only numpy; nothing is read or fitted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

GENERAL = "general"
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Thresholds:
    """When to trust an expert: least probability, least lead over the runner-up, greatest distance."""

    confidence: float = 0.35
    margin: float = 0.1
    distance: float = 1.0


@dataclass(frozen=True)
class Router:
    """A fitted router. `labels` holds the class of each prototype, as an index into `classes`."""

    embedder: str
    classes: tuple[str, ...]
    weights: NDArray[np.float32]  # (classes, dim)
    bias: NDArray[np.float32]  # (classes,)
    temperature: float
    prototypes: NDArray[np.float32]  # (examples, dim), unit length
    labels: NDArray[np.int32]  # (examples,)
    thresholds: Thresholds
    probe: NDArray[np.float32]  # (dim,), the embedder's vector of `router.embed.PROBE`
    queries_sha256: str


@dataclass(frozen=True)
class Decision:
    """Who answers and why. `distance` is 1 - cosine to the nearest example of any expert's domain."""

    expert: str
    domain: str
    confidence: float
    margin: float
    distance: float
    fallback: bool
    reason: str
    probabilities: dict[str, float]


def decide(
    vector: NDArray[np.float32],
    router: Router,
    experts: Mapping[str, str],
    generalist: str,
    barred: Mapping[str, str] = NOTHING,
) -> Decision:
    """Choose for one query.

    Args:
        vector: of the query, shape (dim,).
        experts: an expert's name by domain.
        barred: domains that have an expert which is not to be asked, and why.
    """
    chances = probabilities(vector[None, :], router)[0]
    order = np.argsort(-chances, kind="stable")
    domain, runner_up = (router.classes[index] for index in order[:2])
    confidence = float(chances[order[0]])
    margin = confidence - float(chances[order[1]])
    distance = float(distances(vector[None, :], router)[0])
    objection = _objection(domain, runner_up, confidence, margin, distance, router.thresholds)
    objection = objection or _vacancy(domain, confidence, experts, barred)
    return Decision(
        expert=generalist if objection else experts[domain],
        domain=domain,
        confidence=confidence,
        margin=margin,
        distance=distance,
        fallback=objection is not None,
        reason=objection or f"{domain} at {confidence:.2f}, {margin:.2f} ahead of {runner_up}",
        probabilities={router.classes[index]: float(chances[index]) for index in order},
    )


def probabilities(vectors: NDArray[np.float32], router: Router) -> NDArray[np.float64]:
    """Calibrated probability of each class, shape (n, classes)."""
    logits = (vectors @ router.weights.T + router.bias).astype(np.float64)
    return softmax(logits / router.temperature)


def distances(vectors: NDArray[np.float32], router: Router) -> NDArray[np.float64]:
    """1 - cosine to the nearest example of any expert's domain, shape (n,); 2 where there is none."""
    examples = router.prototypes
    if GENERAL in router.classes:
        examples = examples[router.labels != router.classes.index(GENERAL)]
    return nearest(vectors, examples)


def nearest(vectors: NDArray[np.float32], examples: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 - cosine of each of `vectors` (n, dim) to the nearest of `examples` (m, dim), shape (n,)."""
    similarity = (vectors @ examples.T).astype(np.float64)
    apart: NDArray[np.float64] = 1.0 - similarity.max(axis=1, initial=-1.0)
    return apart


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows that sum to 1, shape as given."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return shares


def _objection(
    domain: str,
    runner_up: str,
    confidence: float,
    margin: float,
    distance: float,
    limits: Thresholds,
) -> str | None:
    """Why no expert should answer, or None. The first that applies is the one told."""
    if domain == GENERAL:
        return f"a general question (probability {confidence:.2f})"
    if distance > limits.distance:
        return f"unlike every known question: distance {distance:.2f} is over {limits.distance:.2f}"
    if confidence < limits.confidence:
        return f"unsure: {domain} has only {confidence:.2f}, under {limits.confidence:.2f}"
    if margin < limits.margin:
        return f"torn between {domain} and {runner_up}: {margin:.2f} apart, under {limits.margin:.2f}"
    return None


def _vacancy(
    domain: str, confidence: float, experts: Mapping[str, str], barred: Mapping[str, str]
) -> str | None:
    """Why nobody but the generalist can be asked of a domain, or None."""
    if domain in experts:
        return None
    return f"{domain} at {confidence:.2f}, but {barred.get(domain, 'there is no expert for it')}"
