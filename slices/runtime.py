"""How an expert is run: one Protocol over llama.cpp, torch and a scripted fake.

The router serves through this module and `slices.report.run` measures through it, so that what was
measured is what is served. Nothing here knows of chat, HTTP or domains.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens.

    Attributes:
        temperature: 0 is greedy.
        seed: None draws a fresh one.
        logprobs: how many of the likeliest tokens are told at each place beside the one that came (0: only
            that one); None tells nothing.
        grammar: GBNF that the answer must match, None for any answer.
    """

    max_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 64
    repeat_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    grammar: str | None = None


@dataclass(frozen=True)
class TokenLogprob:
    """A token's bytes and natural-log probability before any sampling rule; and the likeliest, best first."""

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """A part of an answer: its text, the tokens it took, and on the last piece why it ended."""

    text: str
    tokens: int = 1
    finish: str | None = None  # "stop" or "length", on the last piece only
    logprobs: tuple[TokenLogprob, ...] = ()  # of those tokens, where they were asked for


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


@dataclass(frozen=True)
class Capacity:
    """How much a model that serves may take on.

    Attributes:
        places: answers that are written at a time.
        context: most tokens of a prompt and its answer together.
        threads: processor threads; None for every core.
    """

    places: int = 4
    context: int = 4096
    threads: int | None = None


@dataclass(frozen=True)
class Seat:
    """Where a `Batcher` writes an answer, and how many tokens of its prompt it need not read again."""

    place: int
    prompt_tokens: int
    reused: int = 0


class Batcher(Protocol):
    """A loaded model that writes up to `places` answers at a time. Not thread-safe: one caller."""

    places: int

    def begin(self, prompt: str, sampling: Sampling) -> Seat:
        """Take a prompt as `Runtime.generate` does; call it only while a place is free.

        Raises:
            PromptTooLong, Unsupported: the prompt or the sampling is not for this model.
        """
        ...

    def step(self) -> Sequence[tuple[int, Piece]]:
        """Go on with every answer a little: pieces and their places. A last piece frees its place.

        Raises:
            RunFailed: the model failed; every place is free again.
        """
        ...

    def drop(self, place: int) -> None:
        """Stop an answer and free its place."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...
