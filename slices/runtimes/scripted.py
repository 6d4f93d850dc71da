"""A fake model for tests and dry runs: answers from a table, every byte equally likely."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from slices.runtime import Piece, Sampling
from slices.runtimes.detokenizer import detokenize


@dataclass
class ScriptedRuntime:
    """Answers from a table. A `slices.runtime.Runtime`."""

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
        """The reply whose key occurs in `prompt`, a token a word."""
        self.seen.append(prompt)
        reply = next((text for key, text in self.replies.items() if key in prompt), self.default)
        first, *rest = reply.encode().split(b" ")
        return detokenize([first, *(b" " + word for word in rest), None], sampling)

    def close(self) -> None:
        """Nothing to free."""
