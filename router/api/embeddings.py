"""`POST /v1/embeddings`: the router's own encoder, for whoever wants vectors of whole texts."""

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from router.api.schema import AUTO, MAX_CHARS, Name, Text
from router.errors import BadRequest, UnknownModel

MAX_TEXTS = 256


class Encoder(Protocol):
    """Turns whole texts into unit vectors, and says how many tokens they had."""

    @property
    def name(self) -> str:
        """What the vectors come from."""
        ...

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of length 1, float32 (len(texts), dim)."""
        ...


class EmbeddingRequest(BaseModel):
    """The body of `POST /v1/embeddings`. Token ids and other dimensions than the encoder's are not taken."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: Name
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None

    @property
    def texts(self) -> list[str]:
        """The texts as a list."""
        return [self.input] if isinstance(self.input, str) else self.input


def embeddings(ask: EmbeddingRequest, encoder: Encoder | None) -> dict[str, Any]:
    """The answer. Blocks while it encodes.

    Raises:
        UnknownModel: there is no encoder, or another is named.
        BadRequest: a text is empty or longer than the encoder reads, or other dimensions are wanted.
    """
    if encoder is None:
        raise UnknownModel("there is no encoder here: the router works with `embedder: static`")
    if ask.model not in (AUTO, encoder.name):
        raise UnknownModel(f"there is no encoder {ask.model!r}; there is {encoder.name}, or `{AUTO}`")
    counts = _counted(ask.texts, encoder)
    vectors = encoder.encode(ask.texts)
    if ask.dimensions not in (None, vectors.shape[1]):
        raise BadRequest(f"the encoder has {vectors.shape[1]} dimensions", "dimensions")
    data = [
        {"object": "embedding", "index": index, "embedding": _told(vector, ask.encoding_format)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}
    return {"object": "list", "data": data, "model": encoder.name, "usage": usage}


def _counted(texts: Sequence[str], encoder: Encoder) -> list[int]:
    if not all(texts):
        raise BadRequest("a text is empty", "input")
    if (size := sum(map(len, texts))) > MAX_CHARS:
        raise BadRequest(f"the texts have {size} characters, more than {MAX_CHARS}", "input")
    counts = encoder.count_tokens(texts)
    for index, count in enumerate(counts):
        if count > encoder.max_tokens:
            said = f"text {index} has {count} tokens, more than the {encoder.max_tokens} it encodes"
            raise BadRequest(said, "input")
    return counts


def _told(vector: NDArray[np.float32], form: str) -> list[float] | str:
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(value) for value in vector]
