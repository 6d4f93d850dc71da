"""Static embeddings distilled from a real, tiny encoder of random weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.embedding.sentence import open_encoder
from router.embedding.stack import embedder_names
from router.embedding.static import DIM, SIF_COEFFICIENT, StaticEmbedder, distill, open_static
from tests.router.pico_encoder import WORDS, write_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("torch")
    return open_encoder(write_encoder(tmp_path_factory.mktemp("encoder")))


def test_a_table_row_is_the_encoder_on_a_token_alone(encoder: Any, tmp_path: Path) -> None:
    """PCA at full rank is a rotation, so distances between unweighted rows are kept."""
    reports: list[tuple[int, int]] = []
    distill(encoder, "pico", tmp_path / "table", lambda stage, done, total: reports.append((done, total)))
    assert reports == [(len(WORDS), len(WORDS))]
    table = StaticEmbedder(tmp_path / "table", "t")
    rank = {word: 1 / (place + 2) for place, word in enumerate(WORDS)}
    total = sum(rank.values())
    rows = {
        word: np.asarray(table._model.embedding[place], np.float64)
        / (SIF_COEFFICIENT / (SIF_COEFFICIENT + rank[word] / total))
        for place, word in enumerate(WORDS)
    }
    vectors = {word: encoder.encode([word])[0] for word in ("law", "court", "cell")}
    for one, two in (("law", "court"), ("law", "cell")):
        distance = np.linalg.norm(vectors[one] - vectors[two])
        assert np.linalg.norm(rows[one] - rows[two]) == pytest.approx(distance, rel=1e-3)


def test_a_text_is_the_mean_of_its_rows(encoder: Any, tmp_path: Path) -> None:
    distill(encoder, "pico", tmp_path / "table")
    table = StaticEmbedder(tmp_path / "table")
    assert table.name == "table"
    mean = table._model.embedding[[WORDS.index("law"), WORDS.index("court")]].astype(np.float32).mean(axis=0)
    vectors = table.embed(["law court", "LAW COURT", "", "\x00", "law " * 5000])
    assert vectors.shape == (5, min(DIM, len(WORDS))) and vectors.dtype == np.float32
    assert vectors[0] == pytest.approx(mean / np.linalg.norm(mean), abs=2e-3)
    assert (vectors[1] == vectors[0]).all()
    assert not vectors[2].any()


def test_a_table_is_distilled_once(encoder: Any) -> None:
    loads: list[int] = []

    def load() -> Any:
        loads.append(1)
        return encoder

    first, second = open_static("a/b", load), open_static("a/b", load)
    assert len(loads) == 1
    assert first.name == second.name == "a/b-static-256"
    assert (first.embed(["law"]) == second.embed(["law"])).all()


def test_names_without_loading() -> None:
    minilm = "sentence-transformers/all-MiniLM-L6-v2"
    ngrams = ("word-ngrams-262144", "char-ngrams-262144")
    assert embedder_names(minilm) == (*ngrams, minilm)
    assert embedder_names(None)[:2] == ngrams
    assert embedder_names(None)[2].startswith("all-MiniLM-L6-v2-tuned-")
    assert embedder_names("static") == (*ngrams, f"{minilm}-static-256")
    assert embedder_names("hash") == ("hash-256",)
