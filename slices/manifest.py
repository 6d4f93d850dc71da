"""`slice.json`: the one file between making slices and answering with them.

It is written last, so its presence means that the slice is complete. It says where the slice came
from, what was kept, what it weighs, which quantized files there are and what was measured.
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
SCHEMA: Literal[2] = 2  # raised whenever a key changes its name or meaning
BF16, PARENT = "bf16", "parent"  # what a measurement may be of, beside a file
BITS, SPEED = "bits_per_byte", "tokens_per_second"  # metrics that others look for
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Parent(_Part):
    """Which checkpoint a slice was cut from. The digest covers every header, not the weights."""

    model: str
    model_type: str
    headers_sha256: str
    bytes: int


class Calibration(_Part):
    """Which text the choices were made on."""

    source: Literal["none", "parent", "files"]
    sha256: str = ""
    documents: int = 0
    bytes: int = 0


class Parameters(_Part):
    """Parameters by part, as counts."""

    decoder: int
    per_layer_embedding: int
    embedding: int
    total: int


class Quantized(_Part):
    """A GGUF beside the slice. `file` is a bare name in the slice's folder.

    `tables` is ggml's type of the vocabulary tables, None where llama.cpp chose; `overrides` are regular
    expressions on tensor names and their types.
    """

    file: str
    type: str
    bytes: int
    bits_per_weight: float
    sha256: str
    tables: str | None = None
    overrides: dict[str, str] = {}
    pure: bool = False
    imatrix_sha256: str | None = None


class Measurement(_Part):
    """One measured value: of which file (or of `BF16`, the checkpoint itself, or of `PARENT`), on what
    data, by which code. `domain` is empty where it does not matter.
    """

    of: str
    domain: str
    metric: str
    value: float
    stderr: float
    data: str = ""
    code: str = ""


class Verdict(_Part):
    """A file of the slice against the parent's plain quants of at most its bytes, on held-out text.

    `difference`, in bits a byte, is the file's less that of the best of them, `by`; None where there is none
    so small, or nothing was measured. `reason` then says why.
    """

    of: str
    domain: str
    verdict: Literal["dominated", "level", "better", "unknown"]
    data: str = ""
    by: str | None = None
    by_bytes: int = 0
    difference: float | None = None
    stderr: float | None = None
    compared: int = 0
    reason: str = ""


class Manifest(_Part):
    """A finished slice."""

    schema_version: Literal[2] = Field(SCHEMA, alias="schema")
    name: str
    domain: str
    created: str
    parent: Parent
    recipe: dict[str, Any]
    layers: list[int]
    vocabulary: int
    parameters: Parameters
    bytes: int
    calibration: Calibration
    seed: int
    versions: dict[str, str]
    quantized: list[Quantized] = []
    measurements: list[Measurement] = []
    verdicts: list[Verdict] = []
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
    """Return `name` if it can be a file's in a slice's folder: as a slice's name, but longer.

    Raises:
        BadConfig: it cannot.
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
