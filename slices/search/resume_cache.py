"""What a search has measured so far, as JSON under `$MOM_HOME/search`: a killed one goes on from it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from slices.checkpoint import Checkpoint, fingerprint
from slices.cut.request import SliceRequest
from slices.errors import BadConfig
from slices.estimate import Values
from slices.files import atomic
from slices.files.safetensors_header import parse_json_object
from slices.home import home
from slices.measure.heldout import Heldout
from slices.search.candidates import Structure
from slices.search.frontier import Tried
from slices.search.trial import Skipped


class Memory:
    """Results by structure, and the parent's bits; written after each."""

    def __init__(
        self, checkpoint: Checkpoint, corpus_sha256: str, heldout: Heldout, request: SliceRequest, budget: int
    ) -> None:
        """What is known of a search over this parent and text under that budget.

        Raises:
            BadConfig: what is on disk is damaged; the file is named.
        """
        parts = [
            fingerprint(checkpoint),
            corpus_sha256,
            heldout.sha256,
            request.seed,
            request.portable,
            budget,
        ]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]
        self.budget = budget
        self._path = home() / "search" / f"{digest}.json"
        self._parent: dict[str, list[float]] | None = None
        self._found: dict[Structure, list[Tried | Skipped]] = {}
        if self._path.is_file():
            self._read()

    @property
    def tried(self) -> list[Tried]:
        """Every file that was measured."""
        return [each for found in self._found.values() for each in found if isinstance(each, Tried)]

    @property
    def skipped(self) -> list[Skipped]:
        """Every file that was not."""
        return [each for found in self._found.values() for each in found if isinstance(each, Skipped)]

    def knows(self, structure: Structure) -> bool:
        """Whether a structure was tried."""
        return structure in self._found

    def keep(self, structure: Structure, found: Sequence[Tried | Skipped]) -> None:
        """Remember what came of a structure."""
        self._found[structure] = list(found)
        self._write()

    def parent(self, measure: Callable[[], tuple[Values, Values]]) -> tuple[Values, Values]:
        """The parent's bits and the bytes by document, measured the first time."""
        if self._parent is None:
            bits, sizes = measure()
            self._parent = {"bits": bits.tolist(), "sizes": sizes.tolist()}
            self._write()
        return np.array(self._parent["bits"]), np.array(self._parent["sizes"])

    def _write(self) -> None:
        structures = [
            {
                "structure": asdict(structure),
                "tried": [each.to_json() for each in found if isinstance(each, Tried)],
                "skipped": [asdict(each) for each in found if isinstance(each, Skipped)],
            }
            for structure, found in self._found.items()
        ]
        text = json.dumps({"parent": self._parent, "structures": structures}, indent=1)
        atomic.write_text(self._path, text + "\n")

    def _read(self) -> None:
        stored: dict[str, Any] = parse_json_object(self._path.read_bytes(), self._path)
        try:
            self._parent = stored["parent"]
            for each in stored["structures"]:
                found: list[Tried | Skipped] = [Tried.from_json(one) for one in each["tried"]]
                found += [Skipped(**one) for one in each["skipped"]]
                self._found[Structure(**each["structure"])] = found
        except (KeyError, TypeError) as error:
            raise BadConfig(f"{self._path}: damaged: {error}; delete the file") from None
