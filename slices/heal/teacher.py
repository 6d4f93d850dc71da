"""The teacher: the slice's parent, whose next-token distributions on the slice's tokens are the targets.

`slices.heal.teacher_head` says what its probability of the tokens that the slice lacks becomes.
`slices.heal.cached_teacher` is a teacher that needs no parent in memory.
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
from slices.heal.hidden_states import HiddenStates, forward_hidden_states, hidden_state_loss
from slices.heal.objective import TeacherOutput
from slices.heal.settings import LostTokens
from slices.heal.teacher_head import TeacherHead, teacher_head
from slices.heal.text import HealText
from slices.measure.token_map import TokenMap, token_map
from slices.model_ref import open_model
from slices.runtimes.decoder import decoder_layers


class Teacher(Protocol):
    """Distillation targets for the rows and held-out windows of a text."""

    def rows(self, indices: NDArray[np.int64]) -> TeacherOutput:
        """Targets of some rows, concatenated: rows x row_tokens positions."""
        ...

    def window(self, index: int) -> TeacherOutput:
        """Targets of a held-out window."""
        ...


@dataclass(frozen=True)
class ParentOutput:
    """Hidden states of the parent; its distributions are computed from them on demand.

    `norms` are the input norms of the captured layers, for the hidden-state loss.
    """

    states: HiddenStates
    head: TeacherHead
    norms: Sequence[Any] = ()

    def logprobs(self, start: int, stop: int, student_logprobs: Any) -> Any:
        """Log probabilities over the slice's vocabulary, float32 (stop - start, vocabulary)."""
        return self.head.logprobs(self.states.last[start:stop])

    def hidden_state_loss(self, states: HiddenStates) -> Any:
        """The hidden-state loss of the student's `states`, a scalar tensor."""
        return hidden_state_loss(states, self.states, self.norms)


class ParentTeacher:
    """A teacher that runs the parent. Outputs of held-out windows are kept."""

    def __init__(
        self,
        folder: Path,
        token_map: TokenMap,
        text: HealText,
        device: Device,
        lost_tokens: LostTokens = LostTokens.DROP,
        captured_layers: Sequence[int] = (),
    ) -> None:
        """Load the parent in `folder`.

        Args:
            lost_tokens: what the parent's probability of tokens that the slice lacks becomes.
            captured_layers: indices of the layers whose inputs the hidden-state loss compares.

        Raises:
            BadCheckpoint: a file is damaged, or weights are missing from it.
        """
        import torch

        self._device, self._text = device, text
        self.model = device.load(folder, device.compute).requires_grad_(False).eval()
        layers = decoder_layers(self.model)
        self._captured_layers = [layers[index] for index in captured_layers]
        self._ids = torch.tensor(token_map.ids, device=device.name)
        self._head = teacher_head(self.model, token_map, lost_tokens)
        self._windows: dict[int, TeacherOutput] = {}

    def rows(self, indices: NDArray[np.int64]) -> TeacherOutput:
        """Run the parent over rows of the text."""
        return self._run(self._text.rows[indices], self._captured_layers)

    def window(self, index: int) -> TeacherOutput:
        """Run the parent over a held-out window, once; without layer inputs."""
        if index not in self._windows:
            self._windows[index] = self._run(self._text.windows[index][None], ())
        return self._windows[index]

    def _run(self, tokens: NDArray[np.int32], captured_layers: Sequence[Any]) -> ParentOutput:
        import torch

        with torch.no_grad():
            ids = self._ids[torch.tensor(tokens, dtype=torch.int64, device=self._device.name)]
            states = forward_hidden_states(self.model, captured_layers, self._device, ids)
        return ParentOutput(states, self._head, [layer.input_layernorm for layer in captured_layers])


def find_parent(slice_folder: Path) -> tuple[Path, TokenMap]:
    """The folder of a slice's parent, and which of its tokens the slice's are.

    Raises:
        NotFound: the parent is not there.
        BadCheckpoint: the model there is not the one that the slice was cut from.
    """
    recorded = manifest.read(slice_folder).parent
    parent = open_model(recorded.model)
    if parent.headers_sha256 != recorded.headers_sha256:
        raise BadCheckpoint(
            f"{recorded.model} is not the model that {slice_folder} was cut from: its headers differ "
            f"(sha256 {parent.headers_sha256[:12]}, recorded {recorded.headers_sha256[:12]})"
        )
    return parent.folder, token_map(slice_folder, parent.folder)
