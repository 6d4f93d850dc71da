"""Continuous batching: several answers in one llama.cpp context, each a token further with every step.

An answer joins at the next step and leaves with its last token, while the others go on. Prompts are read
in shares between the tokens of answers that are under way, so that a long one delays nobody for long. What
a place has read stays there: a prompt that begins with it, as the next turn of a chat does, is read on
from there. (Orca: Yu et al., 2022, OSDI; reading prompts in shares: Sarathi, Agrawal et al., 2023,
arXiv 2308.16369.)
"""

from collections.abc import Sequence
from os import cpu_count
from pathlib import Path

from slices.errors import SliceError
from slices.runtime import Capacity, Piece, Sampling, Seat
from slices.runtimes.llama_answer import Answer
from slices.runtimes.llama_model import LlamaModel
from slices.runtimes.llama_slots import MOST, LlamaSlots, Part

SHARED = 128  # tokens of prompts in a step that answers under way wait for


class LlamaBatcher:
    """A GGUF file in llama.cpp, writing several answers at a time. Implements `slices.runtime.Batcher`."""

    def __init__(self, path: Path, capacity: Capacity) -> None:
        """Load `path`.

        Raises:
            MissingExtra: llama-cpp-python is not installed.
            RunFailed: llama.cpp refuses the file, or memory is short.
        """
        self.places = capacity.places
        self._model = LlamaModel(path)
        threads = capacity.threads or cpu_count() or 1
        try:
            self._slots = LlamaSlots(self._model, capacity.places, capacity.context, threads)
        except SliceError:
            self._model.close()
            raise
        self._answers: dict[int, Answer] = {}
        self._held: list[list[int]] = [[] for _ in range(capacity.places)]  # tokens that a place has read

    def begin(self, prompt: str, sampling: Sampling) -> Seat:
        """Take a prompt, whose control tokens count as such, to the free place that knows most of it."""
        tokens = self._model.prompt(prompt, self._slots.length)
        answer = Answer(self._model, tokens, sampling, self._slots.length)
        free = [place for place in range(self.places) if place not in self._answers]
        place = max(free, key=lambda each: (_alike(self._held[each], tokens), -len(self._held[each])))
        common = min(_alike(self._held[place], tokens), len(tokens) - 1)  # the last one says what follows
        answer.read = self._slots.keep(place, common)
        self._held[place] = tokens[: answer.read]
        self._answers[place] = answer
        return Seat(place, len(tokens), answer.read)

    def step(self) -> Sequence[tuple[int, Piece]]:
        """Run the next tokens of every answer together."""
        parts = self._parts()
        try:
            logits = self._slots.decode(parts)
        except SliceError:
            self._start_over()
            raise
        for part in parts:
            self._answers[part.sequence].read += len(part.tokens)
            self._held[part.sequence] += part.tokens
        found = [(place, piece) for place in logits for piece in self._answers[place].go_on(logits[place])]
        for place, piece in found:
            if piece.finish:
                self.drop(place)
        return found

    def drop(self, place: int) -> None:
        """Stop an answer; what was read for it stays, for a prompt that goes on from there."""
        answer = self._answers.pop(place, None)
        if answer is not None:
            answer.close()

    def close(self) -> None:
        """Free the model; calling it twice is fine."""
        for place in list(self._answers):
            self.drop(place)
        self._slots.close()
        self._model.close()

    def _parts(self) -> list[Part]:
        """What the next step runs: the last token of answers under way, and shares of new prompts."""
        waiting = {place: answer.unread for place, answer in self._answers.items()}
        writing = [place for place, unread in waiting.items() if unread == 1]
        reading = {place: unread for place, unread in waiting.items() if unread > 1}
        room = (SHARED if writing else MOST) if reading else 0
        shares = shared_out(min(room, MOST - len(writing)), reading)
        return [self._part(place, shares.get(place, 1)) for place in (*writing, *shares)]

    def _part(self, place: int, count: int) -> Part:
        answer = self._answers[place]
        tokens = answer.tokens[answer.read : answer.read + count]
        return Part(place, tokens, answer.read, count == answer.unread)

    def _start_over(self) -> None:
        for place in list(self._answers):
            self.drop(place)
        self._slots.forget()
        self._held = [[] for _ in range(self.places)]


def shared_out(room: int, wanted: dict[int, int]) -> dict[int, int]:
    """`room` tokens in equal shares to who wants some, nobody more than he wants; the short ones first."""
    shares: dict[int, int] = {}
    for place in sorted(wanted, key=lambda each: (wanted[each], each)):
        share = min(wanted[place], room // (len(wanted) - len(shares)))
        shares[place] = share
        room -= share
    return {place: share for place, share in shares.items() if share}


def _alike(held: Sequence[int], tokens: Sequence[int]) -> int:
    """How many tokens both begin with."""
    for index, (one, other) in enumerate(zip(held, tokens, strict=False)):
        if one != other:
            return index
    return min(len(held), len(tokens))
