"""Fits the router that ships: `router/pretrained`, from the domains' example queries and public data sets.

    mom route tune --data DIR --layers 3 --epochs 2 -o ENCODER
    python -m benchmarks.routing.pretrain --data DIR --encoder ENCODER
    python -m benchmarks.routing.pretrain --data DIR --encoder ENCODER --out FOLDER --heldout FILE

The third command fits without the queries that the encoder was not trained on either, and writes these to
FILE, so that `mom route eval --data FILE` with `router: FOLDER` measures on queries that no part has seen.
No text is stored, only weights and vectors.
"""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from benchmarks.routing.data import PEER_CASES, UNSEEN_SETS
from router.embedding.finetuned import finetuned_name, is_training_query
from router.embedding.pretrained_encoder import save_pretrained
from router.embedding.sentence import open_encoder
from router.embedding.stack import open_embedders
from router.embedding.vector_cache import VectorCache
from router.routing import store
from router.serving.default_router import FOLDER
from router.training.dataset import LabelledQuery, read_choices, read_corpus_snippets, read_queries
from router.training.example_queries import SOURCE, read_example_queries
from router.training.fit import fit_labelled
from router.training.weighting import clean
from slices.files.atomic import write_text
from slices.text import domains

NEVER_TRAINED = (*UNSEEN_SETS, PEER_CASES)  # data sets that are only measured on
MAX_PER_SOURCE = 4000  # queries of a data set
SNIPPETS = 2000  # of each domain's corpus


def main() -> None:
    args = _arguments()
    if args.encoder:
        name = finetuned_name(args.encoder)
        save_pretrained(open_encoder(args.encoder), str(name))
    queries = _queries(args.data)
    if args.heldout:
        write_text(args.heldout, _jsonl(query for query in queries if not _may_train(query)))
        queries = [query for query in queries if _may_train(query)]
    else:
        queries = [query for query in queries if query.source not in NEVER_TRAINED]
    embedders = open_embedders(None)
    cache = VectorCache(embedders[-1])
    snippets = read_corpus_snippets(args.data, domains.names(), SNIPPETS)
    router = fit_labelled(queries, [*embedders[:-1], cache], snippets, read_choices(args.data))
    cache.save()
    store.save(router, args.out)
    print(json.dumps({"queries": len(queries), "sources": Counter(query.source for query in queries)}))


def _queries(data: Path) -> list[LabelledQuery]:
    """Example queries and samples of the data sets, those that are only measured on first, so that they keep
    the texts that they share with others."""
    public = sorted(read_queries(data), key=_order)
    cleaned = clean([*public, *read_example_queries()], domains.names())
    taken: Counter[str | None] = Counter()
    kept = []
    for query in cleaned:
        taken[query.source] += 1
        if query.source == SOURCE or taken[query.source] <= MAX_PER_SOURCE:
            kept.append(query)
    return kept


def _order(query: LabelledQuery) -> tuple[bool, bytes]:
    """Test sets first, then a random but fixed order."""
    return query.source not in NEVER_TRAINED, hashlib.sha1(query.text.encode("utf-8", "replace")).digest()


def _may_train(query: LabelledQuery) -> bool:
    return query.source not in NEVER_TRAINED and is_training_query(query.text)


def _jsonl(queries: Iterable[LabelledQuery]) -> str:
    rows = [
        {
            "query": query.text,
            "domain": query.domain,
            "form": query.form,
            "lang": query.language,
            "source": query.source,
            "hard": query.hard,
        }
        for query in queries
    ]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--encoder", type=Path, help="folder of `mom route tune`; default: the one that ships"
    )
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--heldout", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
