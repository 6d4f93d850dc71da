"""A runtime that writes one answer at a time, behind the Protocol of those that write several."""

from collections.abc import Generator, Iterator, Sequence

from slices.errors import Unsupported
from slices.runtime import Piece, Runtime, Sampling, Seat


class OneByOne:
    """One place. Implements `slices.runtime.Batcher`."""

    places = 1

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._answer: Iterator[Piece] = iter(())

    def begin(self, prompt: str, sampling: Sampling) -> Seat:
        """Take a prompt.

        Raises:
            Unsupported: it asks for probabilities or a grammar.
        """
        if sampling.logprobs is not None or sampling.grammar is not None:
            raise Unsupported("this model runs without llama.cpp, which logprobs and response_format need")
        self._answer = self._runtime.generate(prompt, sampling)
        return Seat(0, len(self._runtime.encode(prompt)))

    def step(self) -> Sequence[tuple[int, Piece]]:
        """The next piece."""
        return [(0, next(self._answer, Piece("", 0, "stop")))]

    def drop(self, place: int) -> None:
        """Stop the answer."""
        if isinstance(self._answer, Generator):
            self._answer.close()

    def close(self) -> None:
        """Free the runtime."""
        self.drop(0)
        self._runtime.close()
