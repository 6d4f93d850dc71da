"""`POST /v1/embeddings`: vectors of whole texts by the router's own encoder."""

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from router.api.schema import AUTO, MAX_CHARS, BoundedText, ModelName
from router.errors import BadRequest, UnknownModel

MAX_TEXTS = 256


class Encoder(Protocol):
    """An encoder of whole texts into unit vectors."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    @property
    def max_tokens(self) -> int:
        """The maximum tokens of a text."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of length 1, float32 (len(texts), dim)."""
        ...


class EmbeddingRequest(BaseModel):
    """The body of `POST /v1/embeddings`. Token ids and a choice of dimensions are not supported."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: ModelName
    input: BoundedText | Annotated[list[BoundedText], Field(min_length=1, max_length=MAX_TEXTS)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None

    @property
    def texts(self) -> list[str]:
        """The texts as a list."""
        return [self.input] if isinstance(self.input, str) else self.input


def embed(request: EmbeddingRequest, encoder: Encoder | None) -> dict[str, Any]:
    """The response body. Blocks while it encodes.

    Raises:
        UnknownModel: there is no encoder, or another is named.
        BadRequest: a text is empty or longer than the encoder reads, or other dimensions are requested.
    """
    if encoder is None:
        raise UnknownModel("there is no encoder here: the router works with `embedder: static`")
    if request.model not in (AUTO, encoder.name):
        raise UnknownModel(f"there is no encoder {request.model!r}; there is {encoder.name}, or `{AUTO}`")
    counts = _token_counts(request.texts, encoder)
    vectors = encoder.encode(request.texts)
    if request.dimensions not in (None, vectors.shape[1]):
        raise BadRequest(f"the encoder has {vectors.shape[1]} dimensions", "dimensions")
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, request.encoding_format)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}
    return {"object": "list", "data": data, "model": encoder.name, "usage": usage}


def _token_counts(texts: Sequence[str], encoder: Encoder) -> list[int]:
    if not all(texts):
        raise BadRequest("a text is empty", "input")
    if (size := sum(map(len, texts))) > MAX_CHARS:
        raise BadRequest(f"the texts have {size} characters, more than {MAX_CHARS}", "input")
    counts = encoder.count_tokens(texts)
    for index, count in enumerate(counts):
        if count > encoder.max_tokens:
            message = f"text {index} has {count} tokens, more than the {encoder.max_tokens} it encodes"
            raise BadRequest(message, "input")
    return counts


def _encoded(vector: NDArray[np.float32], encoding_format: str) -> list[float] | str:
    if encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(value) for value in vector]
