"""The Protocols of a loaded model, `Runtime` and `Batcher`, over llama.cpp, torch and a scripted fake.

The router serves through this module and `slices.report.evaluate` measures through it, so that what was
measured is what is served. Nothing here knows of chat, HTTP or domains.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters.

    Attributes:
        temperature: 0 is greedy.
        seed: None draws a fresh one.
        logprobs: how many of the most likely tokens to report at each position beside the sampled one (0:
            only that one); None reports none.
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
    """A token's bytes and log probability (nats) before any sampling rule; `top`: the most likely tokens."""

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """A streamed part of an answer: its text, its number of tokens, and on the last piece why it ended."""

    text: str
    tokens: int = 1
    finish_reason: str | None = None  # "stop" or "length", on the last piece only
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
    """The limits of a model that serves.

    Attributes:
        max_num_seqs: sequences that are decoded at a time, llama.cpp's n_seq_max.
        max_model_len: most tokens of a prompt and its answer together, llama.cpp's n_ctx of a sequence.
        threads: processor threads; None for every core.
    """

    max_num_seqs: int = 4
    max_model_len: int = 4096
    threads: int | None = None


@dataclass(frozen=True)
class Slot:
    """The slot of a `Batcher` that answers a prompt; `cached_tokens` of the prompt are in its KV cache."""

    id: int
    prompt_tokens: int
    cached_tokens: int = 0


class Batcher(Protocol):
    """A loaded model that answers up to `max_num_seqs` prompts at a time. Not thread-safe: one caller."""

    max_num_seqs: int

    def begin(self, prompt: str, sampling: Sampling) -> Slot:
        """Take a prompt as `Runtime.generate` does; call it only while a slot is free.

        Raises:
            PromptTooLong, Unsupported: the prompt or the sampling is not for this model.
        """
        ...

    def step(self) -> Sequence[tuple[int, Piece]]:
        """Run one batch: the new pieces and their slots. A last piece frees its slot.

        Raises:
            RunFailed: the model failed; every slot is free again.
        """
        ...

    def abort(self, slot: int) -> None:
        """Stop an answer and free its slot."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...
