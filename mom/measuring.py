"""What measuring and healing begin with: a slice's folder, and its domain's own text."""

from pathlib import Path

from mom import console
from slices import domains, manifest
from slices.checkpoint import open_checkpoint
from slices.corpus import Corpus
from slices.cut import domain_text
from slices.errors import NotFound
from slices.request import Request


def folder_of(reference: str) -> Path:
    """The folder of a SLICE, or of a plain checkpoint where there is no such slice."""
    try:
        return manifest.find(reference)
    except NotFound:
        if (Path(reference) / "config.json").is_file():
            return Path(reference)
        raise


def own_text(name: str, made: manifest.Manifest, report: console.Report) -> Corpus:
    """The text of the domain `name`: what the slice `made` was cut by, if that is its domain."""
    corpus = tuple(Path(path) for path in made.recipe.get("corpus", [])) if made.domain == name else ()
    request = Request(name, "all", made.parent.model, corpus=corpus, seed=made.seed)
    return domain_text(open_checkpoint(made.parent.model), domains.load(name), request, report)
