"""A `Runtime` of one sequence behind the `Batcher` Protocol."""

from collections.abc import Generator, Iterator, Sequence

from slices.errors import Unsupported
from slices.runtime import Piece, Runtime, Sampling, Slot


class SingleSequenceBatcher:
    """A batcher of one slot; a `slices.runtime.Batcher`."""

    max_num_seqs = 1

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._pieces: Iterator[Piece] = iter(())

    def begin(self, prompt: str, sampling: Sampling) -> Slot:
        """Take a prompt.

        Raises:
            Unsupported: it asks for log probabilities or a grammar.
        """
        if sampling.logprobs is not None or sampling.grammar is not None:
            raise Unsupported("this model runs without llama.cpp, which logprobs and response_format need")
        self._pieces = self._runtime.generate(prompt, sampling)
        return Slot(0, len(self._runtime.encode(prompt)))

    def step(self) -> Sequence[tuple[int, Piece]]:
        """The next piece."""
        return [(0, next(self._pieces, Piece("", 0, "stop")))]

    def abort(self, slot: int) -> None:
        """Stop the answer."""
        if isinstance(self._pieces, Generator):
            self._pieces.close()

    def close(self) -> None:
        """Free the runtime."""
        self.abort(0)
        self._runtime.close()
