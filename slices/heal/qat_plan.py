"""The quantization that a healing trains for: planned before it, recorded after it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slices import manifest
from slices.heal.curve import EvalPoint
from slices.heal.request import HealRequest
from slices.heal.run_state import RunState
from slices.quant.fit import imatrix_sha256
from slices.quant.imatrix import collect
from slices.quant.imatrix_file import Imatrix, read_imatrix, write_imatrix
from slices.quant.plan import QuantizationPlan, plan_quantization
from slices.quant.recipe import make_recipe
from slices.quant.trained_recipe import IMATRIX_FILE, KEY
from slices.text.corpus import Part
from slices.text.use import text_use


@dataclass(frozen=True)
class QatPlan:
    """A quantization, its importance matrix and that matrix' file; None for none."""

    plan: QuantizationPlan
    imatrix: Imatrix | None = None
    file: Path | None = None

    @property
    def files(self) -> dict[str, Path]:
        """What lies beside the healed slice for it, by name."""
        return {} if self.file is None else {IMATRIX_FILE: self.file}

    def add_to(
        self, healed: manifest.Manifest, request: HealRequest, unquantized: EvalPoint | None
    ) -> manifest.Manifest:
        """The manifest of the healed slice with what it was trained for, and the text of the matrix.

        Args:
            unquantized: the slice as given, not quantized, on selection text.
        """
        recipe, config = self.plan.recipe, request.config
        record: Mapping[str, Any] = {
            "type": recipe.type,
            "embedding_type": recipe.embedding_type,
            "types": self.plan.types,
            "imatrix_sha256": None if self.imatrix is None else imatrix_sha256(self.imatrix),
            "start": config.qat_start,
            "interval": config.qat_interval,
            "unquantized": None if unquantized is None else unquantized.to_json(),
        }
        texts = list(healed.texts)
        if self.imatrix is not None:
            texts.append(text_use("imatrix", request.text.calibration(), Part.CALIBRATION))
        return healed.model_copy(update={"healing": {**(healed.healing or {}), KEY: record}, "texts": texts})


def plan_qat(request: HealRequest, run: RunState) -> QatPlan:
    """Plan the quantization of `request`; an importance matrix is measured once and kept with the run.

    Raises:
        SliceError: as `plan_quantization` and `slices.quant.imatrix.collect`.
    """
    config = request.config
    recipe = make_recipe(config.qat or "", config.qat_embedding_type)
    if not config.qat_imatrix:
        return QatPlan(plan_quantization(request.slice, recipe))
    file = run.folder / IMATRIX_FILE
    if not file.is_file():
        found = collect(request.slice, request.text)
        write_imatrix(replace(found, datasets=(manifest.read(request.slice).domain,)), file)
    imatrix = read_imatrix(file)  # as it will be read by whoever quantizes the healed slice
    return QatPlan(plan_quantization(request.slice, recipe, imatrix), imatrix, file)
