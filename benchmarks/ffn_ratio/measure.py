"""Makes and measures the files of the experiments, and keeps a row for each as soon as it is there.

A row that is there already, for the same weights, text and name, is not measured again; a file whose
tensors all have the types of an earlier one is not made again. Which files is in
`benchmarks.ffn_ratio.trials`, of which models in `benchmarks.ffn_ratio.models`.
"""

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.ffn_ratio.findings import cases, paired, verdict
from benchmarks.ffn_ratio.models import Model, importance
from benchmarks.ffn_ratio.padded_quant import padded_copy
from benchmarks.ffn_ratio.text import calibration, held_text
from benchmarks.ffn_ratio.trials import EXPERIMENTS, Trial
from benchmarks.models.toy_gemma4 import RECORD
from slices.files.atomic import write_text
from slices.gguf.header import read_gguf_header
from slices.gguf.tensor_types import EMBEDDING_TENSORS
from slices.measure.divergence import Divergence, measure_divergence
from slices.measure.heldout import Heldout
from slices.measure.predictor import advise_layers
from slices.measure.reference import Reference, compute_reference
from slices.quant.fit import fit_imatrix, imatrix_sha256, save_values
from slices.quant.imatrix_file import Imatrix, read_imatrix, write_imatrix
from slices.quant.quantizer import make_params, run_quantizer
from slices.quant.size import predict_from_export
from slices.runtimes.llama_runtime import LlamaRuntime

LOW = ("Q2_K", "Q3_K", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")  # below 4 bits
FIGURES = ("kl", "same_top1", "perplexity_ratio", "bits_per_byte", "reference_bits_per_byte")
SUMS = ("bytes", "tokens", "kl", "same", "bits", "reference_bits")


@dataclass
class Bench:
    """The file of figures, and what every measurement shares."""

    output: Path
    data: Path
    work: Path
    limit: int  # bytes of held-out text a model
    tokens: int  # of calibration text an importance matrix is measured on
    threads: int
    figures: dict[str, Any]
    weights: dict[str, Imatrix] = field(default_factory=dict)

    def save(self) -> None:
        """Write the figures, with what follows from the rows."""
        models, rows = self.figures["models"], self.figures["rows"]
        self.figures["rows"] = [row | verdict(models[row["model"]], row) for row in rows]
        self.figures["cases"] = cases(self.figures)
        self.figures["paired"] = paired(self.figures["rows"])
        self.output.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.output, json.dumps(self.figures, indent=1) + "\n")

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row, in the place of those of the same name."""
        name = row["model"], row["recipe"]["name"]
        others = [each for each in self.figures["rows"] if (each["model"], each["recipe"]["name"]) != name]
        self.figures["rows"] = [*others, row]
        self.save()

    def rows(self, model: Model, data: str) -> list[dict[str, Any]]:
        """Those of these weights on this text."""
        wanted = (model.name, self.about(model)["sha256"], data)
        keys = ("model", "weights_sha256", "data")
        return [row for row in self.figures["rows"] if tuple(row[key] for key in keys) == wanted]

    def about(self, model: Model) -> dict[str, Any]:
        """What is noted of the model itself."""
        found: dict[str, Any] = self.figures["models"].setdefault(model.name, {})
        return found


def log(text: str) -> None:
    """To stderr, with the time."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def run_model(bench: Bench, model: Model, experiments: list[str]) -> None:
    """Measure all trials of one model that are not there yet."""
    text = held_text(bench.data, model.domains, bench.limit)
    describe(bench, model, text)
    done = {row["recipe"]["name"] for row in bench.rows(model, text.sha256)}
    wanted = {trial.name: trial for each in experiments for trial in EXPERIMENTS[each]()}
    todo = [trial for trial in wanted.values() if trial.name not in done]
    log(f"{model.name}: {len(todo)} of {len(wanted)} rows to measure")
    if model.parent and "BF16 against parent" not in done:
        add_cut(bench, model, reference_of(bench, model.parent, text))
    if todo:
        reference = reference_of(bench, model, text)
        for trial in todo:
            add_trial(bench, model, trial, reference)
    bench.save()


def describe(bench: Bench, model: Model, text: Heldout) -> None:
    """Note what there is to know of a model besides its rows."""
    advice = advise_layers(model.ffn_ratios, model.swa_share)
    with model.gguf.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    about = bench.about(model)
    about |= {
        "origin": model.origin, "sha256": sha256, "bytes": model.gguf.stat().st_size,
        "parameters": sum(tensor.weights for tensor in read_gguf_header(model.gguf).tensors),
        "ffn_ratios": list(model.ffn_ratios), "swa_share": model.swa_share,
        "advice": {key: getattr(advice, key) for key in ("verdict", "confidence", "type", "fallback")},
        "domains": list(model.domains),
        "text": {"sha256": text.sha256, "bytes": text.nbytes, "documents": text.documents},
    }  # fmt: skip
    if (model.source / RECORD).is_file():
        about["training"] = json.loads((model.source / RECORD).read_text())


def reference_of(bench: Bench, model: Model, text: Heldout) -> Reference:
    """The bf16 model's distributions on the text."""
    log(f"{model.name}: reference on {text.nbytes:,} bytes")
    runtime = LlamaRuntime(model.gguf, bench.threads)
    try:
        return compute_reference(f"{model.name} in bf16", runtime, text)
    finally:
        runtime.close()


def add_cut(bench: Bench, model: Model, reference: Reference) -> None:
    """What the cut alone did: the slice in bf16 against its parent."""
    started = time.monotonic()
    found = measured(bench, model.gguf, "BF16", reference)
    bits = read_gguf_header(model.gguf).bits_per_weight
    file = {"bytes": model.gguf.stat().st_size, "bits_per_weight": bits, "below_4_bits": 0.0, "types": "BF16"}
    keep(bench, model, Trial("swa", "BF16 against parent", "BF16"), file, found, started)


def add_trial(bench: Bench, model: Model, trial: Trial, reference: Reference) -> None:
    """Make one file, measure it, keep its row."""
    imatrix = importance_of(bench, model) if trial.weighted else None
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=bench.work) as scratch:
        path = Path(scratch) / "trial.gguf"
        if trial.padded:
            file = simulated(model, trial, imatrix, path)
        else:
            file = planned(model, trial, imatrix)
            rows = bench.rows(model, reference.text.sha256)
            twin = next((row for row in rows if row["types"] == file["types"]), None)
            if twin is not None:
                repeat(bench, model, trial, file, twin)
                return
            quantize(bench, model, trial, imatrix, path)
        found = measured(bench, path, trial.name, reference)
    keep(bench, model, trial, file, found, started)


def planned(model: Model, trial: Trial, imatrix: Imatrix | None) -> dict[str, Any]:
    """Size and types of a file before it is made; `types` stands for all of them and the importance."""
    predicted = predict_from_export(model.gguf, trial.recipe, imatrix is not None)
    blocks = [each for each in read_gguf_header(model.gguf).tensors if each.name not in EMBEDDING_TENSORS]
    low = sum(each.weights for each in blocks if predicted.types[each.name] in LOW)
    types = json.dumps([sorted(predicted.types.items()), imatrix_sha256(imatrix) if imatrix else ""])
    return {
        "bytes": predicted.bytes,
        "bits_per_weight": predicted.bits_per_weight,
        "below_4_bits": low / sum(each.weights for each in blocks),
        "table_types": {name: predicted.types[name] for name in EMBEDDING_TENSORS if name in predicted.types},
        "types": hashlib.sha256(types.encode()).hexdigest(),
    }


def simulated(model: Model, trial: Trial, imatrix: Imatrix | None, path: Path) -> dict[str, Any]:
    """Make a file of a padded trial, and say what it would weigh."""
    weights = imatrix.values if imatrix else {}
    made = padded_copy(model.gguf, path, trial.type, trial.padded, weights)
    low = float(trial.padded == "blocks" and trial.type in LOW)
    return {**asdict(made), "below_4_bits": low, "types": trial.name}


def quantize(bench: Bench, model: Model, trial: Trial, imatrix: Imatrix | None, path: Path) -> None:
    """Make the file of a recipe."""
    values = None
    if imatrix is not None:
        types = predict_from_export(model.gguf, trial.recipe, True).types
        values = path.with_suffix(".safetensors")
        save_values(fit_imatrix(imatrix, read_gguf_header(model.gguf), types), values)
    run_quantizer(make_params(model.gguf, path, trial.recipe, bench.threads, values))


def measured(bench: Bench, path: Path, name: str, reference: Reference) -> Divergence:
    """A GGUF against the reference."""
    runtime = LlamaRuntime(path, bench.threads)
    try:
        return measure_divergence(name, runtime, reference)
    finally:
        runtime.close()


def importance_of(bench: Bench, model: Model) -> Imatrix:
    """The model's importance matrix on calibration text, measured once and kept beside its bf16 file."""
    about = bench.about(model)
    if model.name not in bench.weights:
        file = bench.work / f"{model.name}-{about['sha256'][:8]}-{bench.tokens}.imatrix"
        if not file.is_file() or "imatrix" not in about:
            log(f"{model.name}: importance matrix")
            started = time.monotonic()
            found, coverage = importance(model, calibration(bench.data, model.domains), bench.tokens)
            write_imatrix(found, file, force=True)
            seconds = round(time.monotonic() - started, 1)
            about["imatrix"] = {"tokens": found.tokens, "sha256": imatrix_sha256(found), "seconds": seconds}
            about["imatrix"]["coverage"] = coverage
        bench.weights[model.name] = read_imatrix(file)
    return bench.weights[model.name]


def keep(
    bench: Bench, model: Model, trial: Trial, file: Mapping[str, Any], found: Divergence, started: float
) -> None:
    """Add the row of a measurement."""
    row = {
        "model": model.name, "experiment": trial.experiment, "recipe": asdict(trial), **file,
        **{name: asdict(getattr(found, name)) for name in FIGURES}, "kl_p99": found.kl_quantiles.p99,
        "kl_sampled_tokens": found.kl_sampled_tokens,
        "tokens": found.tokens, "data": found.data, "reference": found.reference,
        "weights_sha256": bench.about(model)["sha256"], "same_as": None,
        "seconds": round(time.monotonic() - started, 1),
        "documents": {name: [round(float(each), 6) for each in getattr(found.sums, name)] for name in SUMS},
    }  # fmt: skip
    bench.add(row)
    kl = f"KL {found.kl.value:.4f} ± {found.kl.stderr:.4f}"
    log(f"{model.name}: {trial.name}: {kl}, {file['bytes']:,} bytes")


def repeat(
    bench: Bench, model: Model, trial: Trial, file: Mapping[str, Any], twin: Mapping[str, Any]
) -> None:
    """Add a row with the figures of its twin, which has the same tensors."""
    row = {**twin, **file, "experiment": trial.experiment, "recipe": asdict(trial), "seconds": 0.0}
    row |= {"same_as": twin["same_as"] or twin["recipe"]["name"]}
    bench.add(row)
    log(f"{model.name}: {trial.name} is {row['same_as']}")
