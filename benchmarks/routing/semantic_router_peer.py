"""aurelio's semantic-router on the queries of bench_route.py, in an environment of its own.

Called by bench_route.py with the interpreter that has it: `pip install "semantic-router[local]"`. Reads an
object from stdin: `model` (folder of its encoder, MiniLM), `routes` (utterances by route), `calibrate` (pairs
of text and route or null), `ask` (texts), `time` (texts by length). Answers with one on stdout.
"""

import json
import sys
import time
from importlib.metadata import version


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
        "confidence": [choice.confidence for choice in chosen],
        "ms": took,
    }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
