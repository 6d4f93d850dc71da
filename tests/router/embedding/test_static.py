"""A table distilled from a real, tiny encoder of random weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.embedding.sentence import open_encoder
from router.embedding.stack import embedder_names
from router.embedding.static import DIM, FREQUENT, StaticEmbedder, distil, static_of
from tests.router.pico_encoder import WORDS, write_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("torch")
    return open_encoder(write_encoder(tmp_path_factory.mktemp("encoder")))


def test_a_table_row_is_the_encoder_on_a_token_alone(encoder: Any, tmp_path: Path) -> None:
    """PCA only turns and centres (as many dimensions stay), so distances between unweighted rows are kept."""
    told: list[tuple[int, int]] = []
    distil(encoder, "pico", tmp_path / "table", lambda done, of: told.append((done, of)))
    assert told == [(len(WORDS), len(WORDS))]
    table = StaticEmbedder(tmp_path / "table", "t")
    rank = {word: 1 / (place + 2) for place, word in enumerate(WORDS)}
    total = sum(rank.values())
    rows = {
        word: np.asarray(table._model.embedding[place], np.float64)
        / (FREQUENT / (FREQUENT + rank[word] / total))
        for place, word in enumerate(WORDS)
    }
    alone = {word: encoder.encode([word])[0] for word in ("law", "court", "cell")}
    for one, two in (("law", "court"), ("law", "cell")):
        apart = np.linalg.norm(alone[one] - alone[two])
        assert np.linalg.norm(rows[one] - rows[two]) == pytest.approx(apart, rel=1e-3)


def test_a_text_is_the_mean_of_its_rows(encoder: Any, tmp_path: Path) -> None:
    distil(encoder, "pico", tmp_path / "table")
    table = StaticEmbedder(tmp_path / "table")
    assert table.name == "table"
    both = table._model.embedding[[WORDS.index("law"), WORDS.index("court")]].astype(np.float32).mean(axis=0)
    found = table.embed(["law court", "LAW COURT", "", "\x00", "law " * 5000])
    assert found.shape == (5, min(DIM, len(WORDS))) and found.dtype == np.float32
    assert found[0] == pytest.approx(both / np.linalg.norm(both), abs=2e-3)
    assert (found[1] == found[0]).all()
    assert not found[2].any()


def test_a_table_is_distilled_once(encoder: Any) -> None:
    loads: list[int] = []

    def load() -> Any:
        loads.append(1)
        return encoder

    first, second = static_of("a/b", load), static_of("a/b", load)
    assert len(loads) == 1
    assert first.name == second.name == "a/b-static-256"
    assert (first.embed(["law"]) == second.embed(["law"])).all()


def test_names_without_loading() -> None:
    minilm = "sentence-transformers/all-MiniLM-L6-v2"
    assert embedder_names(None) == ("words-262144", "letters-262144", f"{minilm}-static-256", minilm)
    assert embedder_names("static") == embedder_names(None)[:3]
    assert embedder_names("hash") == ("hash-256",)
