"""The domain text of a slice, for measuring and healing it."""

from pathlib import Path

from slices import manifest
from slices.cut.pipeline import domain_text
from slices.cut.request import SliceRequest
from slices.model_ref import open_model
from slices.progress import Progress
from slices.text import domains
from slices.text.corpus import Corpus


def own_text(name: str, made: manifest.Manifest, report: Progress) -> Corpus:
    """The text of the domain `name`: the corpus of the slice `made`, if that is its domain."""
    corpus = tuple(Path(path) for path in made.recipe.get("corpus", [])) if made.domain == name else ()
    request = SliceRequest(domain=name, layers="all", model=made.parent.model, corpus=corpus, seed=made.seed)
    return domain_text(open_model(made.parent.model), domains.load(name), request, report)
