"""Vectors of texts over HTTP, as the openai client asks for them; and MiniLM's own, on whole texts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import openai
import pytest
from fastapi.testclient import TestClient

from router.embedding.embedder import HashEmbedder
from router.embedding.sentence import ROUTING_TOKENS, SentenceEmbedder
from tests.router.conftest import listening

Serve = Callable[..., TestClient]
PATH = "/v1/embeddings"
TEXTS = ["Is a verbal contract enforceable?", "How do enzymes lower activation energy?"]


@pytest.mark.parametrize("form", ["float", "base64"])
def test_the_openai_client_gets_the_encoders_vectors(serve: Serve, form: str) -> None:
    with listening(serve()) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        options: dict[str, Any] = (
            {} if form == "base64" else {"encoding_format": form}
        )  # of itself it asks for base64
        found = client.embeddings.create(model="auto", input=TEXTS, **options)
        one = client.embeddings.create(model="hash-256", input=TEXTS[1])
    expected = HashEmbedder().embed(TEXTS)
    assert np.allclose([each.embedding for each in found.data], expected, atol=1e-6)
    assert [each.index for each in found.data] == [0, 1] and found.model == "hash-256"
    assert found.usage.prompt_tokens == found.usage.total_tokens == 11
    assert np.allclose(one.data[0].embedding, expected[1], atol=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "other", "input": "a"}, 404, "hash-256"),
        ({"model": "auto", "input": ""}, 400, "empty"),
        ({"model": "auto", "input": ["a", ""]}, 400, "empty"),
        ({"model": "auto", "input": []}, 400, "input"),
        ({"model": "auto", "input": [[1, 2]]}, 400, "input"),
        ({"model": "auto", "input": "a " * 600}, 400, "text 0 has 600 tokens, more than the 512"),
        ({"model": "auto", "input": ["a" * 300_000] * 2}, 400, "characters"),
        ({"model": "auto", "input": "a", "dimensions": 3}, 400, "256 dimensions"),
        ({"input": "a"}, 400, "model"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_encoded_is_named(
    serve: Serve, body: dict[str, object], status: int, message: str
) -> None:
    answer = serve().post(PATH, json=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


def test_minilm_reads_whole_texts_here_and_their_ends_when_it_routes() -> None:
    minilm = SentenceEmbedder()
    long = " ".join(f"The {number}th clause binds the tenant." for number in range(20))
    (count,) = minilm.count_tokens([long])
    assert ROUTING_TOKENS < count <= minilm.max_tokens == 256
    whole, routed = minilm.encode([long])[0], minilm.embed([long])[0]
    assert float(whole @ routed) < 0.99
    assert np.linalg.norm(whole) == pytest.approx(1, abs=1e-3)
    minilm.model.max_seq_length = minilm.max_tokens
    own = minilm.model.encode([long], normalize_embeddings=True, convert_to_tensor=True).float().numpy()[0]
    assert float(whole @ own) / np.linalg.norm(own) == pytest.approx(1, abs=1e-3)
