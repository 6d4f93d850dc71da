"""How an expert is run: one Protocol over llama.cpp, torch and a scripted fake.

The router serves through this module and `slices.report.run` measures through it, so that what was
measured is what is served. Nothing here knows of chat, HTTP or domains.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens. `temperature` 0 is greedy; `seed` None draws a fresh one."""

    max_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 64
    repeat_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """A part of an answer: its text, the tokens it took, and on the last piece why it ended."""

    text: str
    tokens: int = 1
    finish: str | None = None  # "stop" or "length", on the last piece only


class Runtime(Protocol):
    """A loaded model. Not thread-safe: one caller at a time."""

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, with the leading bos where the model wants one, special tokens as text."""
        ...

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Natural-log probability of tokens[1:], each given all before it. Shape (len(tokens) - 1,)."""
        ...

    def distributions(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Natural-log probabilities of every token in place of tokens[1:], a few positions at a time.

        The chunks, each of shape (some positions, vocabulary), hold len(tokens) - 1 positions together,
        in order; a chunk is at most 64 MB and the caller's to keep. Read them all before the next call.
        """
        ...

    def expected_counts(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Sum of the next token's distribution over all positions of `tokens`. Shape (vocabulary,)."""
        ...

    def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
        """Continue `prompt` (bos is added; control tokens in it count as such). Closing it stops the run."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...


@dataclass
class ScriptedRuntime:
    """A fake for tests and dry runs: answers from a table, every byte equally likely."""

    replies: dict[str, str] = field(default_factory=dict)
    default: str = "scripted answer"
    seen: list[str] = field(default_factory=list)

    def encode(self, text: str) -> list[int]:
        """One token a byte, after a bos of 256."""
        return [256, *text.encode()]

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Uniform over 256 bytes: exactly 8 bits a byte."""
        return np.full(len(tokens) - 1, -np.log(256.0))

    def distributions(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Uniform over 256 bytes, no chance for a bos; one position a chunk."""
        row = np.append(np.full((1, 256), -np.log(256.0)), [[-np.inf]], axis=1).astype(np.float32)
        for _ in tokens[1:]:
            yield row.copy()

    def expected_counts(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Every byte equally often; never a bos."""
        return np.append(np.full(256, len(tokens) / 256), 0.0)

    def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
        """The reply whose key occurs in `prompt`, one piece a word."""
        self.seen.append(prompt)
        reply = next((text for key, text in self.replies.items() if key in prompt), self.default)
        words = reply.split(" ")
        for index, word in enumerate(words[: sampling.max_tokens]):
            yield Piece(word if index == 0 else f" {word}")
        yield Piece("", 0, "stop" if len(words) <= sampling.max_tokens else "length")

    def close(self) -> None:
        """Nothing to free."""
