"""Example queries of the domains: of a domain's YAML file and of the files `domains/NAME/LANG*.jsonl`.

A line of a JSONL file is an object as in `router.training.dataset`, less `domain` and `lang`, which its path
gives: `domains/law/en-short.jsonl`, `domains/law/de.jsonl`.
"""

from dataclasses import replace
from pathlib import Path

from router.training.dataset import LabelledQuery, read_file
from slices.text import domains

SOURCE = "examples"


def read_example_queries(names: list[str] | None = None) -> list[LabelledQuery]:
    """The example queries of the domains `names`, by default of all, in order of domain and file.

    Raises:
        BadTraining: a line of a JSONL file is malformed; it is numbered.
        BadConfig, NotFound: as `slices.text.domains.load`.
    """
    chosen = domains.names() if names is None else names
    return [query for name in chosen for query in _of_domain(name)]


def _of_domain(name: str) -> list[LabelledQuery]:
    texts = domains.load(name).queries
    queries = [LabelledQuery(text=text, domain=name, source=SOURCE) for text in texts]
    for file in sorted(domains.path_of(name).with_suffix("").glob("*.jsonl")):
        queries += _of_file(file, name)
    return queries


def _of_file(file: Path, name: str) -> list[LabelledQuery]:
    language = file.stem.split("-")[0]
    found = [query for query, _ in read_file(file, domain=name)]
    return [replace(query, language=query.language or language, source=SOURCE) for query in found]
