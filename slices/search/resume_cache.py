"""The measurements of a search, as JSON under `$MOM_HOME/search`: a killed search resumes from them."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from slices.errors import BadConfig
from slices.estimate import Values
from slices.files import atomic
from slices.files.safetensors_header import parse_json_object
from slices.home import home
from slices.search.candidates import Structure
from slices.search.frontier import Candidate
from slices.search.trial import Skipped

SCHEMA = 3


class SearchCache:
    """Results by structure, and the parent's bits; written to disk after each.

    `kept_folder` is the place for the healed slice of the best candidate so far.
    """

    def __init__(self, key: Mapping[str, Any], budget: int) -> None:
        """Open the cache of the search that `key` (`slices.search.request.cache_key`) identifies.

        Raises:
            BadConfig: the file on disk is damaged or of another schema; it is named.
        """
        text = json.dumps(dict(key), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:20]
        self.budget = budget
        self.kept_folder = home() / "search" / f"{digest}-best"
        self._key = dict(key)
        self._path = home() / "search" / f"{digest}.json"
        self._parent: dict[str, list[float]] | None = None
        self._results: dict[Structure, list[Candidate | Skipped]] = {}
        if self._path.is_file():
            self._read()

    @property
    def candidates(self) -> list[Candidate]:
        """Every measured file."""
        return [each for each in self._all() if isinstance(each, Candidate)]

    @property
    def skipped(self) -> list[Skipped]:
        """Every file that was not measured."""
        return [each for each in self._all() if isinstance(each, Skipped)]

    def __contains__(self, structure: Structure) -> bool:
        """Whether a structure was tried."""
        return structure in self._results

    def add(self, structure: Structure, results: Sequence[Candidate | Skipped]) -> None:
        """Store the results of a structure."""
        self._results[structure] = list(results)
        self._write()

    def parent(self, measure: Callable[[], tuple[Values, Values]]) -> tuple[Values, Values]:
        """The parent's bits and the bytes, each (documents,); measured the first time."""
        if self._parent is None:
            bits, sizes = measure()
            self._parent = {"bits": bits.tolist(), "bytes": sizes.tolist()}
            self._write()
        return np.array(self._parent["bits"]), np.array(self._parent["bytes"])

    def _all(self) -> list[Candidate | Skipped]:
        return [each for results in self._results.values() for each in results]

    def _write(self) -> None:
        structures = [
            {
                "structure": asdict(structure),
                "candidates": [each.to_json() for each in results if isinstance(each, Candidate)],
                "skipped": [asdict(each) for each in results if isinstance(each, Skipped)],
            }
            for structure, results in self._results.items()
        ]
        content = {"schema": SCHEMA, "key": self._key, "parent": self._parent, "structures": structures}
        atomic.write_text(self._path, json.dumps(content, indent=1) + "\n")

    def _read(self) -> None:
        stored: dict[str, Any] = parse_json_object(self._path.read_bytes(), self._path)
        if stored.get("schema", 1) != SCHEMA:
            raise BadConfig(
                f"{self._path}: expected schema {SCHEMA}, found {stored.get('schema', 1)}: another "
                "version of mom wrote it; delete the file"
            )
        try:
            self._parent = stored["parent"]
            for each in stored["structures"]:
                results: list[Candidate | Skipped] = [Candidate.from_json(one) for one in each["candidates"]]
                results += [Skipped(**one) for one in each["skipped"]]
                self._results[Structure(**each["structure"])] = results
        except (KeyError, TypeError) as error:
            raise BadConfig(f"{self._path}: damaged: {error}; delete the file") from None
