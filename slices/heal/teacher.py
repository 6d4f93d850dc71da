"""The teacher of a slice: its parent, which reads the slice's tokens and says what it expects next.

What the parent expects is shared out over the tokens that the slice kept. `slices.heal.saved` is a teacher
that needs no parent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from slices import manifest
from slices.device import Device
from slices.errors import BadCheckpoint
from slices.heal.objective import Head, Target
from slices.heal.states import States, apart, read
from slices.heal.text import Text
from slices.measure.token_map import token_map
from slices.model_ref import open_model
from slices.runtimes.decoder import decoder_layers


class Teacher(Protocol):
    """Knows what to expect at each position of a text's rows and windows."""

    def rows(self, numbers: NDArray[np.int64]) -> Target:
        """For rows of the text, one after another: rows x context positions."""
        ...

    def window(self, number: int) -> Target:
        """For a held-out window."""
        ...


@dataclass(frozen=True)
class Expected:
    """Distributions that are computed from the last hidden states as they are asked for.

    `norms` show entering states to their layers.
    """

    states: States
    head: Head
    norms: Sequence[Any] = ()

    def logprobs(self, start: int, stop: int, given: Any) -> Any:
        """Log probabilities over the slice's vocabulary, float32 (stop - start, vocabulary)."""
        return self.head.logprobs(self.states.last[start:stop])[0]

    def apart(self, states: States) -> Any:
        """How far a slice's states are from the parent's, where the layers read them."""
        return apart(states, self.states, self.norms)


class Parent:
    """The parent, run as it is asked. Held-out windows are run once."""

    def __init__(
        self, folder: Path, ids: NDArray[np.int64], text: Text, device: Device, watched: Sequence[int] = ()
    ) -> None:
        """Load the parent in `folder`, whose ids of the slice's tokens are `ids` (slice vocabulary,).

        Args:
            watched: the layers whose inputs the slice's are held against.

        Raises:
            BadCheckpoint: a file is damaged, or weights are missing from it.
        """
        import torch

        self._device, self._text = device, text
        self.model = device.load(folder, device.compute).requires_grad_(False).eval()
        layers = decoder_layers(self.model)
        self._watched = [layers[index] for index in watched]
        self._ids = torch.tensor(ids, device=device.name)
        weight = self.model.get_output_embeddings().weight
        absent = torch.zeros(len(ids), device=device.name).masked_fill(self._ids < 0, -torch.inf)
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        self._head = Head(weight[self._ids.clamp(min=0)], cap, absent if (ids < 0).any() else None)
        self._windows: dict[int, Target] = {}

    def rows(self, numbers: NDArray[np.int64]) -> Target:
        """Run the parent over rows of the text."""
        return self._run(self._text.rows[numbers], self._watched)

    def window(self, number: int) -> Target:
        """Run the parent over a window, if it has not been; what enters its layers is not kept."""
        if number not in self._windows:
            self._windows[number] = self._run(self._text.windows[number][None], ())
        return self._windows[number]

    def _run(self, tokens: NDArray[np.int32], watched: Sequence[Any]) -> Expected:
        import torch

        with torch.no_grad():
            ids = self._ids[torch.tensor(tokens, dtype=torch.int64, device=self._device.name)]
            states = read(self.model, watched, self._device, ids)
        return Expected(states, self._head, [layer.input_layernorm for layer in watched])


def find_parent(slice_folder: Path) -> tuple[Path, NDArray[np.int64]]:
    """The folder of a slice's parent, and its id of each of the slice's tokens, -1 for a row without one.

    Raises:
        NotFound: the parent is not there.
        BadCheckpoint: what is there now is not what the slice was cut from.
    """
    recorded = manifest.read(slice_folder).parent
    parent = open_model(recorded.model)
    if parent.headers_sha256 != recorded.headers_sha256:
        raise BadCheckpoint(
            f"{recorded.model} is not the model that {slice_folder} was cut from: its headers differ "
            f"(sha256 {parent.headers_sha256[:12]}, recorded {recorded.headers_sha256[:12]})"
        )
    return parent.folder, token_map(slice_folder, parent.folder)


def came_after(tokens: Any) -> Any:
    """The token that came at each position of rows (rows, context), -1 after a row's last; flat, int64."""
    import torch

    last = torch.full_like(tokens[:, :1], -1)
    return torch.cat([tokens[:, 1:], last], dim=1).flatten()


def flat(rows: Sequence[NDArray[np.int32]] | NDArray[np.int32]) -> NDArray[np.int32]:
    """Rows, one after another."""
    return np.concatenate([np.asarray(row).ravel() for row in rows])
