"""Simulate gaps between two models that do not differ, and count how often each test finds a difference.

Single comparisons at 5 %, and families of 100 under Holm's method. The same with a planted difference tells
what a test is able to find. Every cell of the table has its own seeded random numbers.
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.paths import RESULTS
from benchmarks.statistics.methods import METHODS, Method, methods_for
from benchmarks.statistics.nulls import NULLS
from slices.measure.sign_flip import SIGNIFICANCE_LEVEL

DOCUMENTS = (2, 5, 8, 10, 20, 50)
FAMILY_DOCUMENTS = (10, 20, 50)
COMPARISONS = 100
SIMULATIONS = 4000
FAMILIES = 400
PLANTED = 3.0  # standard errors of the mean gap, in single comparisons
PLANTED_IN_FAMILY = 6.0


def rejected(
    method: Method, null: str, documents: int, count: int, level: float, planted: float = 0.0
) -> NDArray[np.bool_]:
    """Whether p is below a level in simulated comparisons; (count,).

    Args:
        null: a name of `NULLS`.
        planted: a difference, in standard errors of a mean of so many gaps of scale one.
    """
    random = np.random.default_rng([list(NULLS).index(null), documents])
    found = np.empty(count, dtype=bool)
    for number in range(count):
        gaps, weights = NULLS[null](random, documents)
        found[number] = (
            method(gaps + planted / math.sqrt(documents) * weights, weights, number, level) < level
        )
    return found


def single(null: str, documents: int, count: int = SIMULATIONS) -> Iterator[dict[str, Any]]:
    """Share of comparisons with p < 5 %: without a difference, with a planted one; a row for each method."""
    level, fewer = SIGNIFICANCE_LEVEL, max(1, count // 4)
    for name, method in methods_for(documents).items():
        shares = {
            "false_positives": float(rejected(method, null, documents, count, level).mean()),
            "power": float(rejected(method, null, documents, fewer, level, PLANTED).mean()),
        }
        yield {"null": null, "documents": documents, "method": name, **shares}


def family(
    null: str, documents: int, count: int = FAMILIES, methods: Sequence[str] = tuple(METHODS)
) -> Iterator[dict[str, Any]]:
    """Share of families with any significant comparison, and of planted differences that are significant.

    Under Holm's method the least of 100 p-values is significant if it is below 5 % / 100, and no other can be
    if it is not.
    """
    level = SIGNIFICANCE_LEVEL / COMPARISONS
    for name in methods:
        method = METHODS[name]
        found = rejected(method, null, documents, count * COMPARISONS, level).reshape(count, COMPARISONS)
        shares = {
            "false_positives": float(found.any(axis=1).mean()),
            "power": float(rejected(method, null, documents, count, level, PLANTED_IN_FAMILY).mean()),
        }
        yield {"null": null, "documents": documents, "method": name, **shares}


def measure(simulations: int, families: int, processes: int) -> dict[str, Any]:
    """All nulls, numbers of documents and methods."""
    cells = [(null, documents) for null in NULLS for documents in DOCUMENTS]
    of_families = [(null, documents) for null in NULLS for documents in FAMILY_DOCUMENTS]
    with ProcessPoolExecutor(processes) as pool:
        singles = [pool.submit(_rows, False, *cell, simulations) for cell in cells]
        grouped = [pool.submit(_rows, True, *cell, families) for cell in of_families]
        return {
            "single": [row for each in singles for row in each.result()],
            "families": [row for each in grouped for row in each.result()],
        }


def _rows(grouped: bool, null: str, documents: int, count: int) -> Sequence[dict[str, Any]]:
    return list((family if grouped else single)(null, documents, count))


def main() -> None:
    """Write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--simulations", type=int, default=SIMULATIONS)
    parser.add_argument("--families", type=int, default=FAMILIES)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "null.json")
    args = parser.parse_args()
    figures = {
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"numpy": version("numpy")},
        "level": SIGNIFICANCE_LEVEL,
        "simulations": args.simulations,
        "families": args.families,
        "comparisons": COMPARISONS,
        "planted": PLANTED,
        "planted_in_family": PLANTED_IN_FAMILY,
    } | {"results": measure(args.simulations, args.families, args.processes)}
    args.output.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
