"""Simulate gaps between two models that do not differ, and count how often each test finds a difference.

Single comparisons at 5 %, and families of 100 under Holm's method. The same with a planted difference tells
what a test is able to find. Every cell of the table has its own seeded random numbers.
"""

import argparse
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.paths import RESULTS
from benchmarks.statistics.methods import BEFORE, METHODS, Method, p_values
from benchmarks.statistics.nulls import NULLS
from slices.measure.paired import MIN_DOCUMENTS
from slices.measure.sign_flip import SIGNIFICANCE_LEVEL

DOCUMENTS = (2, 5, 8, 10, 20, 50)
FAMILY_DOCUMENTS = (10, 20, 50)
COMPARISONS = 100
SIMULATIONS = 2000
FAMILIES = 300
PLANTED = 3.0  # standard errors of the mean gap, in single comparisons
PLANTED_IN_FAMILY = 6.0
_BATCH = 250  # comparisons that share subsets and resamples


def rejected(
    null: str,
    documents: int,
    count: int,
    level: float = SIGNIFICANCE_LEVEL,
    planted: float = 0.0,
    methods: Mapping[str, Method] = METHODS,
) -> dict[str, NDArray[np.bool_]]:
    """By method, whether p is below a level in simulated comparisons; (count,).

    Args:
        null: a name of `NULLS`.
        planted: a difference, in standard errors of a mean of so many gaps of scale one.
    """
    random = np.random.default_rng([list(NULLS).index(null), documents])
    found: dict[str, list[NDArray[np.bool_]]] = {}
    for start in range(0, count, _BATCH):
        drawn = [NULLS[null](random, documents) for _ in range(min(_BATCH, count - start))]
        gaps, weights = (np.array(each) for each in zip(*drawn, strict=True))
        gaps += planted / math.sqrt(documents) * weights
        for name, values in p_values(gaps, weights, level, random, methods).items():
            found.setdefault(name, []).append(values < level)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def single(null: str, documents: int, count: int = SIMULATIONS) -> list[dict[str, Any]]:
    """Share of comparisons with p < 5 %: without a difference, with a planted one; a row for each method."""
    methods = METHODS if documents >= MIN_DOCUMENTS else {BEFORE: METHODS[BEFORE]}
    alike = rejected(null, documents, count, methods=methods)
    planted = rejected(null, documents, count // 2, planted=PLANTED, methods=methods)
    return [
        _row(null, documents, name, float(alike[name].mean()), float(planted[name].mean())) for name in alike
    ]


def family(null: str, documents: int, count: int = FAMILIES) -> list[dict[str, Any]]:
    """Share of families with any significant comparison, and of planted differences that are significant.

    Under Holm's method the least of 100 p-values is significant if it is below 5 % / 100, and no other can be
    if it is not.
    """
    level = SIGNIFICANCE_LEVEL / COMPARISONS
    alike = rejected(null, documents, count * COMPARISONS, level)
    planted = rejected(null, documents, count, level, PLANTED_IN_FAMILY)
    families = {name: each.reshape(count, COMPARISONS).any(axis=1) for name, each in alike.items()}
    return [
        _row(null, documents, name, float(families[name].mean()), float(planted[name].mean()))
        for name in alike
    ]


def measure(simulations: int, families: int) -> dict[str, Any]:
    """All nulls, numbers of documents and methods."""
    return {
        "single": [row for null in NULLS for count in DOCUMENTS for row in single(null, count, simulations)],
        "families": [
            row for null in NULLS for count in FAMILY_DOCUMENTS for row in family(null, count, families)
        ],
    }


def _row(null: str, documents: int, method: str, false_positives: float, power: float) -> dict[str, Any]:
    shares = {"false_positives": false_positives, "power": power}
    return {"null": null, "documents": documents, "method": method, **shares}


def figures(simulations: int, families: int, results: Mapping[str, Any]) -> dict[str, Any]:
    """The results with how they were made."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"numpy": version("numpy")},
        "level": SIGNIFICANCE_LEVEL,
        "simulations": simulations,
        "families": families,
        "comparisons": COMPARISONS,
        "planted": PLANTED,
        "planted_in_family": PLANTED_IN_FAMILY,
        "results": dict(results),
    }


def main() -> None:
    """Write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--simulations", type=int, default=SIMULATIONS)
    parser.add_argument("--families", type=int, default=FAMILIES)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "null.json")
    args = parser.parse_args()
    results = measure(args.simulations, args.families)
    found = figures(args.simulations, args.families, results)
    args.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
