"""The text of `mom eval`: held-out documents by domain, without what a step of making the models has seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mom.workflows.domain_text import UsedText, own_text, used_text
from slices import manifest
from slices.errors import NotFound
from slices.measure.heldout import read_verdict
from slices.measure.overlap import Overlap, without_seen
from slices.progress import Progress
from slices.report.evaluated_model import EvaluatedModel

ALL = "all"
GENERAL = "general"  # the domain of text that no slice is cut for: a control


@dataclass(frozen=True)
class EvalText:
    """Documents by domain, what was left out of them, and the sentences on text that could not be checked."""

    documents: Mapping[str, list[str]]
    overlaps: Mapping[str, Overlap]
    unchecked: tuple[str, ...]


def read_eval_text(
    data: Path | None,
    domains: Sequence[str],
    manifests: Sequence[manifest.Manifest],
    models: Sequence[EvaluatedModel],
    progress: Progress,
) -> EvalText:
    """Held-out documents by domain: those of `data`, else the verdict part of each domain's own text.

    Args:
        domains: as `--domain` names them; none for the slices' own.
        models: all that are measured, the baseline included.

    Raises:
        NotFound: there is no such text, or too little.
        BadConfig: more than half of a domain's documents were seen; it is named.
    """
    documents = _documents(data, domains, manifests, progress)
    used = _used(models, progress)
    fresh, overlaps = without_seen(documents, {folder: text.documents for folder, text in used.items()})
    unchecked = tuple(dict.fromkeys(reason for text in used.values() for reason in text.unchecked))
    return EvalText(
        documents=fresh,
        overlaps={domain: replace(found, unchecked=unchecked) for domain, found in overlaps.items()},
        unchecked=unchecked,
    )


def _used(models: Sequence[EvaluatedModel], progress: Progress) -> dict[str, UsedText]:
    """What steps of making the models' slices read, by folder; of the baseline and a lone GGUF too."""
    folders = dict.fromkeys(model.folder.resolve() for model in models)
    slices = [folder for folder in folders if (folder / manifest.FILE).is_file()]
    return {str(folder): used_text(manifest.read(folder), progress) for folder in slices}


def _documents(
    data: Path | None,
    domains: Sequence[str],
    manifests: Sequence[manifest.Manifest],
    progress: Progress,
) -> dict[str, list[str]]:
    own = sorted({found.domain for found in manifests})
    selected = own if ALL in domains else list(domains or own)
    if data is not None:
        found = read_verdict(data, [] if ALL in domains else selected)
        if not domains and (data / "corpora" / GENERAL / "heldout.jsonl").is_file():
            found |= read_verdict(data, [GENERAL])
        return found
    if not selected:
        raise NotFound("which domain? None of these is a finished slice that would say: give --domain NAME")
    return {name: _own_heldout(name, manifests, progress) for name in selected}


def _own_heldout(name: str, manifests: Sequence[manifest.Manifest], progress: Progress) -> list[str]:
    made = next((found for found in manifests if found.domain == name), manifests[0] if manifests else None)
    if made is None:
        raise NotFound(f"no held-out text for {name!r}: give --data DIR")
    documents = list(own_text(name, made, progress).verdict().documents)
    if len(documents) < 2:
        raise NotFound(f"the text of {name!r} is too short to hold any of it out: give --data DIR")
    return documents
