"""The catalogue of experts: finished slices, the file that each is run from, and the expert of each domain.

Reads `slice.json` and the chat template beside it, never a weight. Whether the expert fits in memory is not
known here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from router.errors import BadExperts
from router.experts.chat_template import ChatTemplate, read_chat_template
from router.experts.cost_matrix import cost_matrix
from router.experts.measurements import ExpertMeasurements, read_measurements
from router.experts.policy import DEFAULT, Policy, assign
from router.routing.expected_cost import NOT_MEASURED, CostMatrix
from router.routing.model import GENERAL
from slices import manifest
from slices.manifest import Manifest

PREFERRED_TYPES = ("Q4_K_M", "Q8_0", "Q6_K", "Q5_K_M", "IQ4_XS", "Q3_K_M", "Q2_K", "BF16")
BF16 = "bf16"


@dataclass(frozen=True)
class Expert:
    """A model that is served. `file` None means the bf16 checkpoint in `folder`, run by torch."""

    name: str
    domain: str
    folder: Path
    file: Path | None
    type: str
    bytes: int
    created: str
    chat: ChatTemplate
    measurements: ExpertMeasurements


@dataclass(frozen=True)
class Catalogue:
    """The experts that are served, by name, and the expert of each domain.

    `disabled_reason`: why a domain's queries go to the generalist although there is an expert, by domain.
    `costs`: what the experts cost by domain, relative to the generalist.
    """

    experts: dict[str, Expert]
    by_domain: dict[str, str]
    generalist: str
    disabled_reason: dict[str, str] = field(default_factory=dict)
    costs: CostMatrix = NOT_MEASURED


def without(catalogue: Catalogue, failed: Mapping[str, str]) -> Catalogue:
    """The catalogue without experts that failed (errors by name); the generalist gets their domains' queries.

    Raises:
        BadExperts: the generalist is among those that failed.
    """
    if error := failed.get(catalogue.generalist):
        raise BadExperts(f"the generalist {catalogue.generalist} did not start: {error}")
    disabled = {
        domain: f"its expert {name} did not start"
        for domain, name in catalogue.by_domain.items()
        if name in failed
    }
    return Catalogue(
        experts={name: expert for name, expert in catalogue.experts.items() if name not in failed},
        by_domain={domain: name for domain, name in catalogue.by_domain.items() if name not in failed},
        generalist=catalogue.generalist,
        disabled_reason=catalogue.disabled_reason | disabled,
        costs=catalogue.costs,
    )


def read(
    names: Sequence[str] | None = None,
    generalist: str | None = None,
    quantization: str | None = None,
    root: Path | None = None,
    policy: Policy = DEFAULT,
) -> Catalogue:
    """The slices called `names`, or all below `root` (default `$MOM_HOME/slices`).

    `generalist` names the fallback (default: the slice of domain `general`);
    `quantization` is the type to run where a slice has it. Of two slices of a domain, the newer
    one gets its queries, unless `policy` assigns another; the older can still be requested by name.

    Raises:
        BadExperts: there are none, two share a name, or there is no generalist.
    """
    folders = _folders(names, root)
    if not folders:
        raise BadExperts("there are no slices to serve; make one with `mom slice --domain NAME ...`")
    experts: dict[str, Expert] = {}
    for folder, card in sorted(folders, key=lambda pair: (pair[1].created, pair[1].name)):
        if card.name in experts:
            raise BadExperts(f"two slices are called {card.name!r}: {experts[card.name].folder} and {folder}")
        experts[card.name] = _expert(folder, card, quantization)
    return _assigned(experts, _generalist(experts, generalist), policy)


def _assigned(experts: dict[str, Expert], generalist: str, policy: Policy) -> Catalogue:
    newest = {expert.domain: name for name, expert in experts.items() if expert.domain != GENERAL}
    models = {name: expert.measurements for name, expert in experts.items()}
    assignments = {domain: assign(domain, own, models, generalist, policy) for domain, own in newest.items()}
    return Catalogue(
        experts=experts,
        by_domain={domain: each.expert for domain, each in assignments.items() if each.expert},
        generalist=generalist,
        disabled_reason={domain: each.reason for domain, each in assignments.items() if not each.expert},
        costs=cost_matrix(models, {name: each.domain for name, each in experts.items()}, generalist, policy),
    )


def _folders(names: Sequence[str] | None, root: Path | None) -> list[tuple[Path, Manifest]]:
    if names is None:
        return manifest.all_slices(root)
    folders = [_find(name, root) for name in names]
    return [(folder, manifest.read(folder)) for folder in folders]


def _find(name: str, root: Path | None) -> Path:
    if root is not None and (root / name / manifest.FILE).is_file():
        return root / name
    return manifest.find(name)


def _expert(folder: Path, card: Manifest, quantization: str | None) -> Expert:
    file, kind, size = _file_to_run(folder, card, quantization)
    return Expert(
        name=card.name,
        domain=card.domain,
        folder=folder,
        file=None if file is None else folder / file,
        type=kind,
        bytes=size,
        created=card.created,
        chat=read_chat_template(folder),
        measurements=read_measurements(card, file or manifest.BF16, size),
    )


def _file_to_run(folder: Path, card: Manifest, quantization: str | None) -> tuple[str | None, str, int]:
    """Name, type and bytes of the quantized file to run; of the bf16 checkpoint, whose name is None, else."""
    files = {each.type: each for each in card.quantized if (folder / each.file).is_file()}
    for kind in [quantization, *PREFERRED_TYPES]:
        if kind in files:
            return files[kind].file, files[kind].type, files[kind].bytes
    return None, BF16, card.bytes


def _generalist(experts: dict[str, Expert], name: str | None) -> str:
    if name is not None:
        if name not in experts:
            raise BadExperts(f"the generalist {name!r} is not served; there are: {', '.join(experts)}")
        return name
    general = [each for each, expert in experts.items() if expert.domain == GENERAL]
    if general:
        return general[-1]
    if len(experts) == 1:
        return next(iter(experts))
    raise BadExperts(
        f"no generalist among {', '.join(experts)}: make a slice with `--domain general`, "
        "or name one of these as `generalist` in serve.yaml"
    )
