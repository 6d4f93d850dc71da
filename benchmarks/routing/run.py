"""How well and how fast the router decides, beside aurelio's semantic-router, on the same texts and machine.

    python -m benchmarks.routing.run --data DIR --peer PEER/bin/python
    python -m benchmarks.routing.run --data DIR --encoder TUNED

The second measures a router on an encoder that `mom route tune --data LEARNED.jsonl` made of what `--write
LEARNED.jsonl` says may be learned from; its figures stand beside the others.

Both are fitted on the same queries, of which the peer keeps `--utterances` a domain as examples, and have one
thread. `PEER/bin/python` is an environment with `pip install "semantic-router[local]"`; without --peer
only our side is measured. `routed` is the accuracy of decisions, the generalist among them: the peer's are
those under the confidence threshold that is best on its calibration texts. `accuracy` is that of forced
choice: of the ten experts' domains the likeliest.
"""

import argparse
import hashlib
import json
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.paths import RESULTS
from benchmarks.routing.data import (
    EXPERTS,
    INTERCHANGEABLE,
    PEER_CASES,
    UNSEEN_SETS,
    Query,
    heldout_queries,
    ood_queries,
    queries_of_set,
    read,
    training_queries,
)
from router.embedding import finetuned
from router.embedding.embedder import Embedder
from router.embedding.sentence import packaged_minilm
from router.embedding.stack import open_embedders
from router.routing import store
from router.routing.cascade import Cascade, RoutePredictor
from router.routing.model import GENERAL, Router
from router.training import metrics
from router.training.dataset import MIN_CHOICES_CHARS, OOD, LabelledQuery, read_corpus_snippets
from router.training.decisions import chosen_experts
from router.training.evaluate import evaluate
from router.training.fit import fit
from slices.files.atomic import write_text

OUT = RESULTS / "routing.json"
LENGTHS = (10, 64, 256, 2000)  # tokens
FINETUNED = "tuned: "
LENIENT_SETS = ("bioasq_questions", "medquad_questions")  # between two domains: either is right
TIMED_TEXTS, OOD_TEXTS, CALIBRATION_TEXTS = 200, 4000, 2000


def accuracy_of(
    guess: Sequence[str | None], asked: Sequence[Query], lenient: bool = False
) -> dict[str, float]:
    """Share of right domains, and its standard error."""
    right = [
        label == query.domain or (lenient and label in INTERCHANGEABLE and query.domain in INTERCHANGEABLE)
        for label, query in zip(guess, asked, strict=True)
    ]
    value = float(np.mean(right))
    return {"n": len(right), "value": value, "stderr": float(np.sqrt(value * (1 - value) / len(right)))}


def test_sets(queries: Sequence[Query]) -> dict[str, list[Query]]:
    """The test sets by name."""
    named = {name: queries_of_set(queries, name) for name in (*UNSEEN_SETS, PEER_CASES)}
    return {"stems": heldout_queries(queries), **named, OOD: ood_queries(queries, OOD_TEXTS)}


def accuracies(guess: Sequence[str | None], sets: dict[str, list[Query]]) -> dict[str, Any]:
    """Accuracy on every set; `guess` has all their texts' answers in order."""
    found, at = {}, 0
    for name, asked in sets.items():
        if name != OOD:
            found[name] = accuracy_of(guess[at : at + len(asked)], asked, name in LENIENT_SETS)
        at += len(asked)
    return found


def routed_accuracy_of(
    experts: Sequence[str | None], asked: Sequence[Query], lenient: bool = False
) -> dict[str, float | None]:
    """Share of right decisions and its standard error; None as an expert is the generalist.

    `to_generalist` is of queries of experts' domains, None without any; `wrong_expert` of all queries.
    """
    own = [query.domain in EXPERTS for query in asked]
    expected = [query.domain if domain else None for query, domain in zip(asked, own, strict=True)]
    right = [
        expert == domain or (lenient and {expert, domain} <= set(INTERCHANGEABLE))
        for expert, domain in zip(experts, expected, strict=True)
    ]
    fell_back = [expert is None for expert, domain in zip(experts, own, strict=True) if domain]
    wrong = [expert is not None and not hit for expert, hit in zip(experts, right, strict=True)]
    value = float(np.mean(right))
    return {
        "n": len(right),
        "value": value,
        "stderr": metrics.wilson_stderr(value, len(right)),
        "to_generalist": float(np.mean(fell_back)) if fell_back else None,
        "wrong_expert": float(np.mean(wrong)),
    }


def routed_accuracies(experts: Sequence[str | None], sets: dict[str, list[Query]]) -> dict[str, Any]:
    """Accuracy of the routed decisions on every set; `experts` has all their texts' in order."""
    found, at = {}, 0
    for name, asked in sets.items():
        found[name] = routed_accuracy_of(experts[at : at + len(asked)], asked, name in LENIENT_SETS)
        at += len(asked)
    return found


def ood_detection(in_domain: NDArray[np.float64], sets: dict[str, list[Query]]) -> dict[str, float | None]:
    """AUROC and recall of out-of-domain queries against held-out stems.

    Args:
        in_domain: the in-domain score of each text of all sets, in order; (texts,).
    """
    names = np.concatenate([np.full(len(asked), name) for name, asked in sets.items()])
    own, ood = names == "stems", names == OOD
    return {
        "auroc": metrics.auroc(in_domain, own, ood),
        "recall_at_95": metrics.ood_recall_at(in_domain, own, ood, 0.95),
    }


def ours(router: Router, predictor: RoutePredictor, sets: dict[str, list[Query]]) -> dict[str, Any]:
    """The figures of one of our routers."""
    predictions = predictor.predict([query.text for queries in sets.values() for query in queries])
    ten = [router.classes.index(name) for name in EXPERTS]
    guess = [EXPERTS[int(each.probabilities[ten].argmax())] for each in predictions]
    experts = [None if name == GENERAL else str(name) for name in chosen_experts(predictions, router)]
    in_domain = np.array([each.in_domain for each in predictions])
    labelled = [
        LabelledQuery(query.text, query.domain, source=query.source)
        for name in ("stems", OOD)
        for query in sets[name]
    ]
    report = evaluate(labelled, router, predictor)
    return {
        "routed": routed_accuracies(experts, sets),
        "accuracy": accuracies(guess, sets),
        "ood": ood_detection(in_domain, sets),
        "ece": report.ece,
        "accepted": 1 - (report.routed.to_generalist or 0.0),
        "ood_recall": report.ood_recall,
        "robustness": report.robustness,
        "decided_by": report.decided_by,
    }


def texts_of_lengths(queries: Sequence[Query]) -> dict[str, list[str]]:
    """`TIMED_TEXTS` held-out questions of about each length in MiniLM's tokens; joined where none are."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(packaged_minilm() / "tokenizer.json"))  # type: ignore[operator]
    tokenizer.no_truncation()
    tokenizer.no_padding()
    pool = sorted((query.text for query in queries), key=lambda text: hashlib.sha1(text.encode()).digest())
    counts = [len(each.ids) for each in tokenizer.encode_batch(pool, add_special_tokens=False)]
    found = {}
    for length in LENGTHS:
        near = range(round(0.8 * length), round(1.2 * length) + 1)
        texts, at = [text for text, count in zip(pool, counts, strict=True) if count in near][:TIMED_TEXTS], 0
        texts = texts if len(texts) == TIMED_TEXTS else []
        while len(texts) < TIMED_TEXTS:
            text = ""
            while len(encoded := tokenizer.encode(text, add_special_tokens=False)) < length:
                text, at = f"{text} {pool[at % len(pool)]}".strip(), at + 1
            texts.append(text[: encoded.offsets[length - 1][1]])
        found[str(length)] = texts
    return found


def time_predictions(predictor: RoutePredictor, texts: dict[str, list[str]]) -> dict[str, list[float]]:
    """Milliseconds of every text alone."""
    found = {}
    for length, some in texts.items():
        took = []
        for text in some:
            begun = time.perf_counter()
            predictor.predict([text])
            took.append(1000 * (time.perf_counter() - begun))
        found[length] = took
    return found


def percentiles(took: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """p50, p95 and p99 by length."""
    return {
        length: {f"p{share}": float(np.percentile(times, share)) for share in (50, 95, 99)}
        for length, times in took.items()
    }


def peer(python: Path, learned: Sequence[tuple[str, str]], sets: dict[str, list[Query]], each: int,
         texts: dict[str, list[str]]) -> dict[str, Any]:  # fmt: skip
    """The peer's figures, by the same measures."""
    draw = np.random.default_rng(0)
    shuffled = [learned[at] for at in draw.permutation(len(learned))]
    routes = {name: [text for text, domain in shuffled if domain == name][:each] for name in EXPERTS}
    used = {text for some in routes.values() for text in some}
    left = [(text, None if domain == GENERAL else domain) for text, domain in shuffled if text not in used]
    request = {
        "model": str(packaged_minilm()),
        "routes": routes,
        "calibrate": left[:CALIBRATION_TEXTS],
        "ask": [query.text for asked in sets.values() for query in asked],
        "time": texts,
    }
    script = Path(__file__).with_name("semantic_router_peer.py")
    done = subprocess.run([python, script], input=json.dumps(request), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the peer failed: {done.stderr[-2000:]}")
    response = json.loads(done.stdout)
    if not response["routes"]:
        return {"latency_ms": percentiles(response["ms"])}
    stem_guess, stem_sure = (
        response["routes"][: len(sets["stems"])],
        response["confidence"][: len(sets["stems"])],
    )
    right = np.array([g == q.domain for g, q in zip(stem_guess, sets["stems"], strict=True)])
    return {
        "version": response["version"],
        "utterances": each,
        "fit_seconds": response["fit_seconds"],
        "threshold": response["threshold"],
        "routed": routed_accuracies(response["routed"], sets),
        "accuracy": accuracies(response["routes"], sets),
        "ood": ood_detection(np.array(response["confidence"]), sets),
        "ece": metrics.expected_calibration_error(np.array(stem_sure), right),
        "latency_ms": percentiles(response["ms"]),
    }


def predictors(router: Router, embedders: Sequence[Embedder], of: str = "") -> dict[str, RoutePredictor]:
    """The cascade, and each of its stages alone; `of` goes before their names."""
    first, last = router.stages[0], router.stages[-1]
    cheap = replace(router, heads=router.heads[: first.head_count], stages=(first,))
    return {
        f"{of}cascade": Cascade(router, embedders),
        f"{of}cheap": Cascade(cheap, embedders),
        f"{of}always asked": Cascade(replace(router, stages=(last,)), embedders),
    }


def fitted(
    args: argparse.Namespace, learned: Sequence[Query], embedders: Sequence[Embedder]
) -> tuple[Router, dict[str, Any]]:
    """The router, and the figures that stay: the peer's where it is not asked, with --latency all."""
    found: dict[str, Any] = json.loads(args.out.read_text()) if args.out.is_file() else {}
    found.setdefault("ours", {})
    if args.router and args.router.is_dir():
        return store.load(args.router), found
    begun = time.perf_counter()
    snippets = read_corpus_snippets(args.data, {*EXPERTS, GENERAL})
    choices = {each.text: each.choices for each in learned if len(each.choices) >= MIN_CHOICES_CHARS}
    router = fit(pairs(learned), embedders, snippets=snippets, choices=choices)
    seconds = time.perf_counter() - begun
    training = f"{len(learned)} queries ({len(choices)} with choices) and {len(snippets)} snippets"
    print(f"fitted on {training} in {seconds:.0f} s", flush=True)
    if args.router:
        store.save(router, args.router)
    seconds_of = "fit_seconds_tuned" if args.encoder else "fit_seconds"
    return router, found | {
        "queries": len(learned),
        "with_choices": len(choices),
        "snippets": len(snippets),
        seconds_of: seconds,
    }


def pairs(queries: Sequence[Query]) -> list[tuple[str, str]]:
    """(text, domain)."""
    return [(query.text, query.domain) for query in queries]


def write_learned(learned: Sequence[Query], out: Path) -> None:
    """What may be learned from, as `mom route tune --data` takes it."""
    lines = (json.dumps({"query": text, "domain": domain}) for text, domain in pairs(learned))
    write_text(out, "".join(f"{line}\n" for line in lines))


def main() -> None:
    """Fit, ask, time, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer", type=Path, help="python of an environment with semantic-router[local]")
    parser.add_argument("--utterances", type=int, default=500, help="that the peer keeps a domain")
    parser.add_argument("--router", type=Path, help="where the fitted router is kept, and taken from")
    parser.add_argument("--encoder", type=Path, help="a tuned encoder's folder, in the place of MiniLM")
    parser.add_argument("--write", type=Path, help="write there what may be learned from, and leave")
    parser.add_argument("--latency", action="store_true", help="only the times; the rest stays as it was")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    queries = read(args.data)
    learned, sets = training_queries(queries), test_sets(queries)
    if args.write:
        return write_learned(learned, args.write)
    embedders = open_embedders(args.encoder and str(args.encoder))
    router, found = fitted(args, learned, embedders)
    texts = texts_of_lengths(sets["stems"])
    if args.encoder:
        found["tuned"] = json.loads((args.encoder / finetuned.FILE).read_text())
    for name, predictor in predictors(router, embedders, FINETUNED if args.encoder else "").items():
        times = {"latency_ms": percentiles(time_predictions(predictor, texts))}
        found["ours"][name] = {**found["ours"].get(name, {}), **times}
        found["ours"][name] |= {} if args.latency else ours(router, predictor, sets)
        print(name, json.dumps(found["ours"][name]), flush=True)
    if args.peer:
        asked = {name: [] for name in sets} if args.latency else sets
        theirs = peer(args.peer, pairs(learned), asked, args.utterances, texts)
        found["peer"] = {**found["peer"], "latency_ms": theirs["latency_ms"]} if args.latency else theirs
        print("peer", json.dumps(found["peer"]), flush=True)
    found["made"] = datetime.now(UTC).isoformat(timespec="seconds")
    found["versions"] = {name: version(name) for name in ("torch", "scikit-learn", "sentence-transformers")}
    found["machine"] = platform.machine()
    write_text(args.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
