"""Which experts there are: finished slices, each with the file that it is run from, and who has which domain.

Reads `slice.json` and the chat format beside it, never a weight. Whether the expert fits in memory is not
known here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from router.errors import BadExperts
from router.experts.chat_template import ChatFormat, read_format
from router.experts.policy import BEST, Policy, Worth, assign
from router.routing.model import GENERAL
from slices import manifest
from slices.manifest import Manifest

TYPES = ("Q4_K_M", "Q8_0", "Q6_K", "Q5_K_M", "IQ4_XS", "Q3_K_M", "Q2_K", "BF16")
TORCH = "bf16"


@dataclass(frozen=True)
class Expert:
    """A model that can be asked. `file` None means the bf16 checkpoint in `folder`, run by torch."""

    name: str
    domain: str
    folder: Path
    file: Path | None
    type: str
    bytes: int
    created: str
    chat: ChatFormat
    worth: Worth


@dataclass(frozen=True)
class Catalogue:
    """The experts that are served, by name, and which of them answers for which domain.

    `barred`: domains whose questions go to the generalist although there is an expert, and why.
    """

    experts: dict[str, Expert]
    by_domain: dict[str, str]
    generalist: str
    barred: dict[str, str] = field(default_factory=dict)


def without(catalogue: Catalogue, failed: Mapping[str, str]) -> Catalogue:
    """What is left where some experts failed, by name and why; the generalist gets their domains' questions.

    Raises:
        BadExperts: the generalist is among those that failed.
    """
    if why := failed.get(catalogue.generalist):
        raise BadExperts(f"the generalist {catalogue.generalist} did not start: {why}")
    lost = {domain: name for domain, name in catalogue.by_domain.items() if name in failed}
    barred = {domain: f"its expert {name} did not start" for domain, name in lost.items()}
    return Catalogue(
        {name: expert for name, expert in catalogue.experts.items() if name not in failed},
        {domain: name for domain, name in catalogue.by_domain.items() if name not in failed},
        catalogue.generalist,
        catalogue.barred | barred,
    )


def read(
    names: Sequence[str] | None = None,
    generalist: str | None = None,
    prefer: str | None = None,
    root: Path | None = None,
    policy: Policy = BEST,
) -> Catalogue:
    """The slices called `names`, or all below `root` (default `$MOM_HOME/slices`).

    `generalist` names the one that takes what no expert does (default: the slice of domain `general`);
    `prefer` is the quantization type to run where a slice has it. Of two slices of a domain, the newer
    one gets its queries, unless `policy` finds another better; the older still answers to its name.

    Raises:
        BadExperts: there are none, two share a name, or no generalist can be told.
    """
    found = _chosen(names, root)
    if not found:
        raise BadExperts("there are no slices to serve; make one with `mom slice --domain NAME ...`")
    experts: dict[str, Expert] = {}
    for folder, card in sorted(found, key=lambda pair: (pair[1].created, pair[1].name)):
        if card.name in experts:
            raise BadExperts(f"two slices are called {card.name!r}: {experts[card.name].folder} and {folder}")
        experts[card.name] = _expert(folder, card, prefer)
    return _assigned(experts, _generalist(experts, generalist), policy)


def _assigned(experts: dict[str, Expert], generalist: str, policy: Policy) -> Catalogue:
    newest = {expert.domain: name for name, expert in experts.items() if expert.domain != GENERAL}
    worths = {name: expert.worth for name, expert in experts.items()}
    found = {domain: assign(domain, own, worths, generalist, policy) for domain, own in newest.items()}
    by_domain = {domain: each.expert for domain, each in found.items() if each.expert}
    barred = {domain: each.reason for domain, each in found.items() if not each.expert}
    return Catalogue(experts, by_domain, generalist, barred)


def _chosen(names: Sequence[str] | None, root: Path | None) -> list[tuple[Path, Manifest]]:
    if names is None:
        return manifest.all_slices(root)
    folders = [_find(name, root) for name in names]
    return [(folder, manifest.read(folder)) for folder in folders]


def _find(name: str, root: Path | None) -> Path:
    if root is not None and (root / name / manifest.FILE).is_file():
        return root / name
    return manifest.find(name)


def _expert(folder: Path, card: Manifest, prefer: str | None) -> Expert:
    wanted = [prefer, *TYPES] if prefer else TYPES
    there = {item.type: item for item in card.quantized if (folder / item.file).is_file()}
    chat = read_format(folder)
    for kind in wanted:
        if kind in there:
            item = there[kind]
            worth = _worth(card, item.file, item.bytes)
            path = folder / item.file
            return Expert(card.name, card.domain, folder, path, kind, item.bytes, card.created, chat, worth)
    worth = _worth(card, manifest.BF16, card.bytes)
    return Expert(card.name, card.domain, folder, None, TORCH, card.bytes, card.created, chat, worth)


def _worth(card: Manifest, file: str, nbytes: int) -> Worth:
    """What `mom eval` found of the file that is run, and of the parent beside it."""
    bits = [each for each in card.measurements if each.metric == manifest.BITS]
    speeds = [e.value for e in card.measurements if (e.metric, e.of) == (manifest.SPEED, file)]
    return Worth(
        nbytes,
        {(each.domain, each.data): each.value for each in bits if each.of == file},
        {(each.domain, each.data): each.value for each in bits if each.of == manifest.PARENT},
        speeds[-1] if speeds else None,
    )


def _generalist(experts: dict[str, Expert], wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in experts:
            raise BadExperts(f"the generalist {wanted!r} is not served; there are: {', '.join(experts)}")
        return wanted
    general = [name for name, expert in experts.items() if expert.domain == GENERAL]
    if general:
        return general[-1]
    if len(experts) == 1:
        return next(iter(experts))
    raise BadExperts(
        f"no generalist among {', '.join(experts)}: make a slice with `--domain general`, "
        "or name one of these as `generalist` in serve.yaml"
    )
