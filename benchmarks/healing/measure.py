"""Measurements of a row of docs/results.md: likelihoods in bf16; size and generation of its Q4_K_M file.

The parent is run once a domain and kept; differences pair by document. Chooses no rows, heals nothing.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.healing.rows import DOMAINS
from slices.checkpoint import weight_files
from slices.estimate import Values, ratio
from slices.measure.bits_per_byte import score_text
from slices.measure.divergence import Divergence, measure_against
from slices.measure.heldout import Heldout, cut_heldout, read_verdict
from slices.measure.overlap import without_seen
from slices.measure.token_map import token_map
from slices.probes.degeneration import REPETITION, degeneration
from slices.probes.synthetic_tasks import arithmetic, brackets
from slices.quant.quantize import quantize
from slices.runtime import Runtime
from slices.runtimes.open import open_runtime
from slices.text.corpus import read_corpus

TYPE = "Q4_K_M"
WRITTEN = 50  # items of each task


@dataclass
class Bench:
    """The parent, the data, and the measurements of the parent so far."""

    parent: Path
    data: Path
    work: Path
    limit: int
    threads: int
    device: str = "cpu"
    _texts: dict[str, Heldout] = field(default_factory=dict)
    _bits: dict[str, Values] = field(default_factory=dict)

    def text(self, domain: str) -> Heldout:
        """The windows of a domain's verdict text, without documents that any row's calibration text holds."""
        if domain not in self._texts:
            fresh, found = without_seen(read_verdict(self.data, [domain]), self._calibration())
            print(f"  {domain}: {found[domain].seen} of {found[domain].documents} documents seen", flush=True)
            self._texts[domain] = cut_heldout(fresh[domain], self.limit)
        return self._texts[domain]

    def calibration(self, domain: str) -> Path:
        """A domain's calibration text."""
        return self.data / "corpora" / domain / "calibration.jsonl"

    def _calibration(self) -> dict[str, tuple[str, ...]]:
        """The calibration documents of every domain that rows are made from, where they are there."""
        files = {domain: self.calibration(domain) for domain in DOMAINS}
        return {domain: read_corpus([file]).documents for domain, file in files.items() if file.is_file()}

    def parent_bits(self, domain: str) -> Values:
        """Bits of each document under the parent, in its own tokens, (documents,)."""
        if domain not in self._bits:
            runtime = self.open(self.parent)
            self._bits[domain] = score_text("the parent", runtime, self.text(domain)).bits
            runtime.close()
        return self._bits[domain]

    def open(self, folder: Path, file: Path | None = None) -> Runtime:
        """A checkpoint, or a GGUF."""
        return open_runtime(
            folder, None if file is None else file.resolve(), self.threads, device=self.device
        )


def likelihoods(folder: Path, domain: str, bench: Bench) -> dict[str, Any]:
    """KL, top-1 agreement, lost mass, bits per byte, and bits per byte minus the parent's."""
    ours, theirs = bench.open(folder), bench.open(bench.parent)
    text = bench.text(domain)
    found = measure_against(folder.name, ours, theirs, token_map(folder, bench.parent), text)
    ours.close()
    theirs.close()
    sizes = found.sums.bytes
    over = ratio(found.sums.bits - bench.parent_bits(domain), sizes)
    base = ratio(bench.parent_bits(domain), sizes)
    return {
        **_estimates(found),
        "parent": asdict(base),
        "bits_over_parent": asdict(over),
        "bits": found.sums.bits.tolist(),
    }


def written(
    folder: Path, domain: str, bench: Bench, type: str = TYPE, embedding_type: str | None = None
) -> dict[str, Any]:
    """The bytes of the quantized file, its bits per byte, and its generation probes."""
    out = bench.work / f"{folder.name}-{domain}-{type}-{embedding_type}.gguf"
    out.unlink(missing_ok=True)
    quantize(folder, type, out, threads=bench.threads, embedding_type=embedding_type)
    runtime = bench.open(folder, out)
    text = bench.text(domain)
    score = score_text(out.stem, runtime, text)
    writing = _writing(runtime, text)
    runtime.close()
    size = out.stat().st_size
    out.unlink()
    return {
        "type": type,
        "bytes": size,
        "parent": asdict(ratio(bench.parent_bits(domain), score.bytes)),
        "bits": score.bits.tolist(),
        "bits_per_byte": asdict(score.bits_per_byte),
        "bits_over_parent": asdict(ratio(score.bits - bench.parent_bits(domain), score.bytes)),
        "writing": writing,
    }


def weight_bytes(folder: Path) -> int:
    """Bytes of a checkpoint's weights."""
    return sum(file.stat().st_size for file in weight_files(folder))


def _estimates(found: Divergence) -> dict[str, Any]:
    values = ("kl", "kl_first_piece", "same_top1", "bits_per_byte", "lost_mass")
    return {name: value and asdict(value) for name in values for value in [getattr(found, name)]}


def _writing(runtime: Runtime, text: Heldout) -> dict[str, Any]:
    """The probes that stand beside the likelihoods: shares and their errors by name."""
    continuations = degeneration(runtime, [window.text for window in text.windows], WRITTEN)
    scores = [arithmetic(runtime, WRITTEN, 0), brackets(runtime, WRITTEN, 0), continuations[REPETITION]]
    return {each.task: asdict(each.mean) for each in scores}
