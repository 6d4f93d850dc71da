"""aurelio's semantic-router on the queries of benchmarks.routing.run, in an environment of its own.

Called by it with the interpreter that has it: `pip install "semantic-router[local]"`. Reads an object from
stdin: `model` (folder of its encoder, MiniLM), `routes` (utterances by route), `calibrate` (pairs of text and
route or null), `ask` (texts), `time` (texts by length). Answers with one on stdout: `routes` is the forced
choice, `routed` what it returns under the confidence threshold that is the most accurate on `calibrate`.
"""

import json
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any


def main() -> None:
    """Build, calibrate, ask, time."""
    import torch
    from semantic_router import Route
    from semantic_router.encoders import HuggingFaceEncoder
    from semantic_router.routers import IndexedRouter

    torch.set_num_threads(1)
    request = json.load(sys.stdin)
    begun = time.perf_counter()
    routes = [Route(name=name, utterances=texts) for name, texts in request["routes"].items()]
    router = IndexedRouter(HuggingFaceEncoder(name=request["model"], device="cpu"), routes)
    if request["ask"]:  # thresholds change what is said, not how long it takes
        router.fit([text for text, _ in request["calibrate"]], [route for _, route in request["calibrate"]])
    fitted = time.perf_counter() - begun
    chosen = [router(text) for text in request["ask"]]
    threshold = best_threshold(router, request["calibrate"]) if request["ask"] else 0.0
    took: dict[str, list[float]] = {}
    for length, texts in request["time"].items():
        for text in texts:
            begun = time.perf_counter()
            router(text)
            took.setdefault(length, []).append(1000 * (time.perf_counter() - begun))
    answer = {
        "version": version("semantic-router"),
        "fit_seconds": fitted,
        "routes": [choice.name for choice in chosen],
        "routed": [choice.name if choice.confidence >= threshold else None for choice in chosen],
        "threshold": threshold,
        "confidence": [choice.confidence for choice in chosen],
        "ms": took,
    }
    json.dump(answer, sys.stdout)


def best_threshold(router: Any, labelled: Sequence[tuple[str, str | None]]) -> float:
    """The confidence threshold of the highest end-to-end accuracy on labelled texts, a route or null each.

    The router has none of its own: without one it always returns the likeliest route. On a tie the lowest.
    """
    choices = [router(text) for text, _ in labelled]
    best, best_right = 0.0, -1
    for threshold in [step / 50 for step in range(50)]:
        names = [choice.name if choice.confidence >= threshold else None for choice in choices]
        right = sum(name == route for name, (_, route) in zip(names, labelled, strict=True))
        if right > best_right:
            best, best_right = threshold, right
    return best


if __name__ == "__main__":
    main()
