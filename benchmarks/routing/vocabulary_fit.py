"""Token counts in a cut vocabulary against the parent's: by language, on held-out text and on queries.

Chooses the default of `max_token_ratio`: the share of texts that each limit keeps from an expert.
Only tokenizers are loaded.
"""

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import yaml
from tokenizers import Tokenizer

from benchmarks.paths import RESULTS
from benchmarks.routing.data import read
from router.embedding.embedder import truncate_middle
from router.experts.vocabulary_fit import MAX_CHARS, TOKENIZER, VocabularyFit
from slices.text import domains

SENTENCES = Path(__file__).with_name("sentences.yaml")
REPEATS = 3
LIMITS = (1.2, 1.3, 1.4, 1.5, 1.75, 2.0)
QUANTILES = {"min": 0.0, "p5": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}
OWN_DOMAIN = "law"  # of the slice
TEXTS = 200  # of each set of the data, the first ones
QUERY_SETS = ("routerarena", "arena_hard", "banking77", "medquad_questions", "bioasq_questions")


def text_sets(data: Path) -> dict[str, list[str]]:
    """Sentences by language, heads of held-out documents by domain, and queries by data set."""
    sentences = yaml.safe_load(SENTENCES.read_text(encoding="utf-8"))
    found = {f"sentences: {language}": texts for language, texts in sentences.items()}
    for folder in sorted((data / "corpora").iterdir()):
        found[f"text: {folder.name}"] = _field(folder / "heldout.jsonl", "text")
    domain = domains.load(OWN_DOMAIN)
    found[f"queries: {OWN_DOMAIN}, shipped examples"] = domain.queries
    questions = [each for each in read(data) if each.domain == OWN_DOMAIN]
    for source in sorted({each.source for each in questions} - {*QUERY_SETS}):
        texts = [each.text for each in questions if each.source == source][:TEXTS]
        found[f"queries: {OWN_DOMAIN}, {source}"] = texts
    for name in QUERY_SETS:
        found[f"queries: {name}"] = _field(data / "routing" / f"{name}.jsonl", "query")
    return found


def _field(path: Path, key: str) -> list[str]:
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for _, line in zip(range(TEXTS), lines, strict=False)]
    return [str(row[key]) for row in rows if row.get(key)]


def measure(texts: Sequence[str], ours: Tokenizer, theirs: Tokenizer) -> dict[str, Any]:
    """Quantiles of the ratio of token counts, and the share of texts over each limit."""
    ratios = np.array([_count(text, ours) / max(_count(text, theirs), 1) for text in texts])
    quantiles = {name: np.quantile(ratios, level) for name, level in QUANTILES.items()}
    return {
        "n": len(texts),
        "ratio": {name: float(value) for name, value in quantiles.items()},
        "over": {str(limit): float((ratios > limit).mean()) for limit in LIMITS},
    }


def _count(text: str, tokenizer: Tokenizer) -> int:
    return len(tokenizer.encode(truncate_middle(text, MAX_CHARS), add_special_tokens=False).ids)


def latency(fit: VocabularyFit, texts: Sequence[str]) -> dict[str, float]:
    """Milliseconds of one check, tokenizers loaded: of each text the fastest of `REPEATS`."""
    times = []
    for text in texts:
        repeats = []
        for _ in range(REPEATS):
            start = perf_counter()
            fit.misfit(text, "slice")
            repeats.append(1000 * (perf_counter() - start))
        times.append(min(repeats))
    return {name: float(np.quantile(times, q)) for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1))}


def main() -> None:
    """Measure and write results/vocabulary_fit.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slice", type=Path, required=True)
    parser.add_argument("--parent", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    ours, theirs = (Tokenizer.from_file(str(each / TOKENIZER)) for each in (args.slice, args.parent))
    sets = text_sets(args.data)
    results = {name: measure(texts, ours, theirs) for name, texts in sets.items()}
    fit = VocabularyFit({"slice": args.slice, "parent": args.parent}, "parent", 1.0)
    start = perf_counter()
    fit.load()
    report = {
        "slice": args.slice.name,
        "parent": args.parent.name,
        "vocabulary": {"slice": ours.get_vocab_size(), "parent": theirs.get_vocab_size()},
        "sets": results,
        "load_seconds": perf_counter() - start,
        "latency_ms": latency(fit, [text for texts in sets.values() for text in texts]),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"tokenizers": version("tokenizers")},
    }
    out = RESULTS / "vocabulary_fit.json"
    out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, row in results.items():
        print(f"{name:28} {row['n']:4}", *(f"{value:6.2f}" for value in row["ratio"].values()), row["over"])
    print(report["latency_ms"], report["load_seconds"])


if __name__ == "__main__":
    main()
