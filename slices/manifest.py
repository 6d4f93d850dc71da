"""`slice.json`, the manifest of a slice: the interface between making slices and serving them.

It is written last, so its presence means that the slice is complete. It records the parent, the recipe, the
kept layers and rows, parameters and bytes, the quantized files and the measurements.
"""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from slices.errors import BadConfig, NotFound
from slices.files import atomic
from slices.home import check_name, slices_home

FILE = "slice.json"
SCHEMA: Literal[3] = 3  # raised whenever a key changes its name or meaning
BF16, PARENT = "bf16", "parent"  # variants other than a GGUF file
BITS, SPEED = "bits_per_byte", "tokens_per_second"  # names of metrics
RELATIVE = "_relative_to_parent"  # suffix of a metric: its relative change from the parent's, paired
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Parent(_Part):
    """The checkpoint that a slice was cut from. The digest covers every header, not the weights."""

    model: str
    model_type: str
    headers_sha256: str
    bytes: int


class Calibration(_Part):
    """The calibration text: what layers, rows and neurons were chosen on."""

    source: Literal["none", "parent", "files"]
    sha256: str = ""
    documents: int = 0
    bytes: int = 0


class TextUse(_Part):
    """Text that a step read: `cut`, `heal`, `checkpoint`, `imatrix`, `quantization type` or `search`.

    `part` as in `slices.text.corpus.Part`; `files` are absolute paths of its whole corpus, none where the
    parent generated it. `sha256`, `documents` and `bytes` are of the part.
    """

    step: str
    part: Literal["calibration", "selection", "verdict"]
    source: Literal["files", "parent"]
    files: list[str] = []
    sha256: str
    documents: int
    bytes: int


class Parameters(_Part):
    """Parameters by part, as counts."""

    decoder: int
    per_layer_embedding: int
    embedding: int
    total: int


class Quantized(_Part):
    """A GGUF beside the slice. `file` is a bare name in the slice's folder.

    `embedding_type` is ggml's type of the embeddings, None where llama.cpp chose; `overrides` are regular
    expressions on tensor names and their types; `pad_rows`: hidden states are padded to a multiple of 256.
    `healing_kept` is the share of the healing that the file keeps, as `slices.measure.healing_kept` measures
    it; None for a slice that was not healed.
    """

    file: str
    type: str
    bytes: int
    bits_per_weight: float
    sha256: str
    embedding_type: str | None = None
    overrides: dict[str, str] = {}
    pure: bool = False
    pad_rows: bool = False
    imatrix_sha256: str | None = None
    healing_kept: dict[str, Any] | None = None


class Measurement(_Part):
    """One measured value with its standard error.

    `variant` is a GGUF file of the slice, `BF16` for the checkpoint itself, or `PARENT`. `data` is the sha256
    of the text, `code` the version that measured. `domain` is empty where it does not matter. A metric that
    ends in `RELATIVE` is the relative change from the parent's on the same text or items (+0.05: 5 % more),
    with the standard error of the paired comparison.
    """

    variant: str
    domain: str
    metric: str
    value: float
    stderr: float
    data: str = ""
    code: str = ""


class Verdict(_Part):
    """The comparison of a file of the slice with the parent's best plain quant of at most its bytes.

    The `rival` is the one of fewest bits on selection text, of `compared` that are small enough; `selection`
    is that text's sha256, `calibration` that of the importance matrix's text. `difference`, in bits per byte,
    is the file's minus the rival's on verdict text, whose sha256 is `data`: 95 % interval from `low` to
    `high`, two-sided `p`, `n` documents. `alone`: no plain quant is so small. Of it and of `unknown`,
    `reason` says why.
    """

    variant: str
    domain: str
    verdict: Literal["dominated", "level", "better", "alone", "unknown"]
    data: str = ""
    selection: str = ""
    calibration: str = ""
    rival: str | None = None
    rival_bytes: int = 0
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    n: int = 0
    compared: int = 0
    reason: str = ""


class Manifest(_Part):
    """A complete slice.

    `attention`: what became of the full-attention layers that were kept; `sliding` limits them to the window.
    """

    schema_version: Literal[3] = Field(SCHEMA, alias="schema")
    name: str
    domain: str
    created: str
    parent: Parent
    recipe: dict[str, Any]
    layers: list[int]
    attention: Literal["keep", "sliding"] = "keep"
    vocabulary: int
    parameters: Parameters
    bytes: int
    calibration: Calibration
    seed: int
    versions: dict[str, str]
    quantized: list[Quantized] = []
    measurements: list[Measurement] = []
    verdicts: list[Verdict] = []
    texts: list[TextUse] = []
    notes: list[str] = []
    healing: dict[str, Any] | None = None  # what `mom heal` did, as slices.heal.heal records it
    search: dict[str, Any] | None = None  # what `--budget` tried, as slices.search.search records it


def now() -> str:
    """The time as ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write(folder: Path, manifest: Manifest) -> None:
    """Write `folder/slice.json` in one step."""
    text = json.dumps(manifest.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False)
    atomic.write_text(folder / FILE, text + "\n")


def read(folder: Path) -> Manifest:
    """Read and check `folder/slice.json`.

    Raises:
        NotFound: there is none, so `folder` is no finished slice.
        BadConfig: it is not JSON, another version of mom wrote it, or a field is missing or wrong; the field
            is named.
    """
    path = folder / FILE
    if not path.is_file():
        raise NotFound(f"{folder} is no finished slice: it has no {FILE}")
    data = path.read_bytes()
    _check_schema(data, path)
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadConfig(f"{path}: {where}: {first['msg']}") from None
    check_name(manifest.name)
    for quantized in manifest.quantized:
        check_file(quantized.file)
    return manifest


def _check_schema(data: bytes, path: Path) -> None:
    """Refuse the schema of another version; anything else that is wrong is left to the model."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return
    schema = fields.get("schema") if isinstance(fields, dict) else None
    if isinstance(schema, int) and schema < SCHEMA:
        raise BadConfig(
            f"{path}: schema {schema}, expected {SCHEMA}: written by an older mom; cut the slice again"
        )


def check_file(name: str) -> str:
    """Return `name` if it is safe as a file name in a slice's folder.

    Raises:
        BadConfig: it is empty, too long, or could lead out of the folder.
    """
    if not _FILE_NAME.fullmatch(name):
        raise BadConfig(
            f"the file name {name!r} is not usable: expected 1 to 128 letters, digits, '.', '_' or '-', "
            "starting with a letter or digit"
        )
    return name


def find(reference: str) -> Path:
    """The folder of a slice, given as a path or as the name of one in `$MOM_HOME`.

    Raises:
        NotFound: neither is a finished slice.
    """
    if (Path(reference) / FILE).is_file():
        return Path(reference)
    if "/" not in reference:
        folder = slices_home() / check_name(reference)
        if (folder / FILE).is_file():
            return folder
    raise NotFound(f"no slice {reference!r}: expected a folder with a {FILE}, or one of: {_known()}")


def find_or_checkpoint(reference: str) -> Path:
    """The folder of a SLICE, or of a plain checkpoint where there is no such slice.

    Raises:
        NotFound: it is neither.
    """
    try:
        return find(reference)
    except NotFound:
        if (Path(reference) / "config.json").is_file():
            return Path(reference)
        raise


def all_slices(folder: Path | None = None) -> list[tuple[Path, Manifest]]:
    """Every finished slice below `folder` (default `$MOM_HOME/slices`), by name."""
    root = folder or slices_home()
    found = sorted(path.parent for path in root.glob(f"*/{FILE}") if not path.parent.name.startswith("."))
    return [(path, read(path)) for path in found]


def _known() -> str:
    names = sorted(path.parent.name for path in slices_home().glob(f"*/{FILE}"))
    return ", ".join(names) if names else f"(no slices in {slices_home()})"
