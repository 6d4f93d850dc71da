"""The example queries that ship: enough of each form and language, about the whole syllabus, no copies."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from router.embedding.char_ngrams import CharNgramEmbedder
from router.errors import BadTraining
from router.routing.model import GENERAL
from router.training.dataset import LabelledQuery
from router.training.example_queries import read_example_queries
from slices.text import domains

FORMS = {"question", "short", "situation", "task", "pasted", "sloppy", "follow-up"}
LANGUAGES = {"de", "fr", "es", "pt", "zh", "ja", "ru", "hi"}
NEAR = 0.85  # cosine similarity of character n-grams from which two queries are near-duplicates
LONG = 25  # characters: shorter ones, such as `easement` and `easements`, may be alike


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[LabelledQuery]]:
    found = defaultdict(list)
    for query in read_example_queries():
        found[query.domain].append(query)
    return found


def test_every_domain_has_every_form_and_language(shipped: dict[str, list[LabelledQuery]]) -> None:
    assert set(shipped) == set(domains.names())
    for queries in shipped.values():
        english = Counter(query.form for query in queries if query.language == "en")
        assert min(english[form] for form in FORMS) >= 40 and english.total() >= 300
        languages = Counter(query.language for query in queries)
        assert min(languages[language] for language in LANGUAGES) >= 15


def test_a_third_of_1500_general_queries_is_hard(shipped: dict[str, list[LabelledQuery]]) -> None:
    assert len(shipped[GENERAL]) >= 1500
    hard = [query for query in shipped[GENERAL] if query.hard]
    assert len(hard) >= 500 and {query.form for query in hard} == FORMS
    assert not any(query.hard for name, queries in shipped.items() if name != GENERAL for query in queries)


def test_the_queries_spread_over_the_syllabus(shipped: dict[str, list[LabelledQuery]]) -> None:
    for name, queries in shipped.items():
        counts = Counter(query.topic for query in queries if query.language == "en")
        assert min(counts[topic] for topic in domains.load(name).topics) >= 4


def test_no_two_are_near_duplicates(shipped: dict[str, list[LabelledQuery]]) -> None:
    texts = [query.text.casefold().strip() for queries in shipped.values() for query in queries]
    assert len(set(texts)) == len(texts)
    for queries in shipped.values():
        long = [query.text for query in queries if len(query.text) >= LONG]
        vectors = CharNgramEmbedder().embed(long)
        similar = (vectors @ vectors.T).tocoo()
        pairs = [
            (long[row], long[column])
            for row, column, value in zip(similar.row, similar.col, similar.data, strict=True)
            if row < column and value >= NEAR
        ]
        assert not pairs


def test_a_users_files_carry_language_and_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "configs" / "domains"
    (folder / "cooking").mkdir(parents=True)
    (folder / "cooking.yaml").write_text("name: cooking\ndescription: food\nqueries: [how to boil rice]\n")
    (folder / "cooking" / "en-short.jsonl").write_text('{"query": "boil eggs", "form": "short"}\n')
    (folder / "cooking" / "de.jsonl").write_text('{"query": "Reis kochen", "topic": "Reis"}\n\n')
    monkeypatch.chdir(tmp_path)
    found = read_example_queries(["cooking"])
    assert [(each.text, each.language, each.form, each.topic) for each in found] == [
        ("how to boil rice", None, None, None),
        ("Reis kochen", "de", None, "Reis"),
        ("boil eggs", "en", "short", None),
    ]
    assert {(each.domain, each.source) for each in found} == {("cooking", "examples")}
    (folder / "cooking" / "de.jsonl").write_text("[]\n")
    with pytest.raises(BadTraining, match=r"de\.jsonl, line 1"):
        read_example_queries(["cooking"])
    assert np.all([each.hard is False for each in found])
