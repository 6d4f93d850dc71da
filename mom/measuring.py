"""`mom eval`: what a slice and its quantized files are worth, on held-out text."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mom import console
from slices import domains, manifest
from slices.atomic import write_text
from slices.checkpoint import locate, open_checkpoint
from slices.corpus import Corpus
from slices.cut import domain_text
from slices.errors import NotFound
from slices.measure.evaluate import Report, Subject, evaluate, record, subjects
from slices.measure.heldout import read_heldout
from slices.request import Request


def folder_of(reference: str) -> Path:
    """The folder of a SLICE, or of a plain checkpoint where there is no such slice."""
    try:
        return manifest.find(reference)
    except NotFound:
        if (Path(reference) / "config.json").is_file():
            return Path(reference)
        raise


def measure(
    references: Sequence[str], names: Sequence[str], against: str | None, data: Path | None, limit: int | None
) -> Report:
    """Bits per byte of every form of every slice; recorded in slice.json as well.

    Args:
        references: slices, plain checkpoints or GGUF files.
        names: domains; by default those of the slices.
        against: the reference, "none", or None for the first slice's parent.
        data: a folder with corpora/<domain>/heldout.jsonl; None takes each domain's own held-out text.
        limit: bytes of text a domain.
    """
    folders = [Path(each) if Path(each).is_file() else folder_of(each) for each in references]
    measured = [subject for folder in folders for subject in subjects(folder)]
    recipes = [manifest.read(folder) for folder in folders if (folder / manifest.FILE).is_file()]
    wanted = list(names) or sorted({found.domain for found in recipes})
    if not wanted:
        raise NotFound("which domain? None of these is a finished slice that would say: give --domain NAME")
    with console.progress_bar() as report:
        texts = read_heldout(data, wanted) if data else _own_text(wanted, recipes, report)
        reference = _reference(against, recipes)
        result = evaluate(measured, texts, limit, reference, progress=report)
    for subject in measured:
        record(subject, result)
    return result


def own_text(name: str, made: manifest.Manifest, report: console.Report) -> Corpus:
    """The text of the domain `name`: what the slice `made` was cut by, if that is its domain."""
    corpus = tuple(Path(path) for path in made.recipe.get("corpus", [])) if made.domain == name else ()
    request = Request(name, "all", made.parent.model, corpus=corpus, seed=made.seed)
    return domain_text(open_checkpoint(made.parent.model), domains.load(name), request, report)


def save(result: Report, path: Path) -> None:
    """Write the report as JSON, in one step."""
    write_text(path, json.dumps(result.to_json(), indent=2) + "\n")


def show_report(result: Report) -> None:
    """One table a domain, the reference first."""
    for domain in result.data:
        rows = []
        for name, row in result.slices.items():
            found = row.domains[domain]
            delta = f"{found.against.value:+.3f} ± {found.against.stderr:.3f}" if found.against else "-"
            value = f"{found.bits_per_byte.value:.3f} ± {found.bits_per_byte.stderr:.3f}"
            rows.append([name, console.size(row.bytes), value, delta, f"{row.tokens_per_second:.0f}"])
        first = next(iter(result.slices.values())).domains[domain]
        title = f"{domain}: {first.documents} held-out documents, {first.bytes:,} bytes"
        difference = f"against {result.against}" if result.against else "against"
        console.print_table(title, ["slice", "size", "bits per byte", difference, "tokens/s"], rows)


def _own_text(
    wanted: Sequence[str], recipes: Sequence[manifest.Manifest], report: console.Report
) -> dict[str, list[str]]:
    """The held-out tenth of each domain's own text: its corpus, else what the parent wrote."""
    texts: dict[str, list[str]] = {}
    for name in wanted:
        made = next((found for found in recipes if found.domain == name), recipes[0] if recipes else None)
        if made is None:
            raise NotFound(f"no held-out text for {name!r}: give --data DIR")
        texts[name] = list(own_text(name, made, report).heldout().documents)
        if len(texts[name]) < 2:
            raise NotFound(f"the text of {name!r} is too short to hold any of it out: give --data DIR")
    return texts


def _reference(against: str | None, recipes: Sequence[manifest.Manifest]) -> Subject | None:
    """The reference row; without a wish, the parent of the first slice."""
    if against == "none" or (against is None and not recipes):
        return None
    if against is None:
        return Subject("parent", locate(recipes[0].parent.model))
    path = Path(against) if Path(against).exists() else None
    first = subjects(path or _slice_or_model(against))[0]
    return replace(first, name=f"{first.name} (reference)")


def _slice_or_model(reference: str) -> Path:
    try:
        return manifest.find(reference)
    except NotFound:
        return locate(reference)
