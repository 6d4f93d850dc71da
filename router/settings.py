"""What `serve.yaml` may say, checked before anything starts.

Only reads and checks; that the experts exist is `router.experts.catalogue`'s to find out.
"""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from router.errors import BadSettings
from router.experts.policy import BEST, Kind, Policy
from router.routing.model import Router, Thresholds
from slices import home
from slices.runtime import Capacity


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Cutoffs(_Settings):
    """Thresholds to use instead of the fitted ones; None keeps the fitted one."""

    confidence: float | None = Field(default=None, ge=0, le=1)
    margin: float | None = Field(default=None, ge=0, le=1)
    belonging: float | None = Field(default=None, ge=0, le=1)


class Preference(_Settings):
    """What counts among experts: see `router.experts.policy.Policy`."""

    prefer: Kind = BEST.prefer
    within: float = Field(default=BEST.within, ge=0, le=1)

    def policy(self) -> Policy:
        """The same for the catalogue."""
        return Policy(self.prefer, self.within)


class Limits(_Settings):
    """What a caller may ask for: request bytes, answer tokens at most and by default, seconds of an answer.

    `first_token_seconds` is what an expert has to begin, and then for its first token, before the
    generalist is asked.
    """

    body_bytes: int = Field(default=1 << 20, ge=1024)
    max_tokens: int = Field(default=4096, ge=1)
    default_max_tokens: int = Field(default=512, ge=1)
    first_token_seconds: float | None = Field(default=60.0, gt=0)
    deadline_seconds: float | None = Field(default=600.0, gt=0)


class Access(_Settings):
    """Who may ask: the holders of the keys in a file that `mom key` made, so many times a minute each.

    Without a file everyone may, which is allowed on this machine alone.
    """

    keys: Path | None = None
    per_minute: int | None = Field(default=None, ge=1)


class Logs(_Settings):
    """What is written of each request, and where; prompts only where it says so. `traces`: OpenTelemetry."""

    access: bool = True
    file: Path | None = None
    prompts: bool = False
    traces: bool = False


class Scaling(_Settings):
    """How many replicas an expert has, what each books of the machine, and what each takes on."""

    num_replicas: int = Field(default=1, ge=1)
    num_cpus: float = Field(default=0.1, ge=0)
    num_gpus: float = Field(default=0, ge=0)
    queue: int = Field(default=32, ge=1)
    answers: int = Field(default=Capacity.max_num_seqs, ge=1, le=64)
    context: int = Field(default=Capacity.max_model_len, ge=256)
    threads: int | None = Field(default=None, ge=1)
    nice: int = Field(default=10, ge=0, le=19)
    autoscaling: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_way_to_scale(self) -> "Scaling":
        if self.autoscaling is not None and self.num_replicas != 1:
            raise ValueError("give either num_replicas or autoscaling, not both")
        return self

    @property
    def capacity(self) -> Capacity:
        """What each replica takes on."""
        return Capacity(self.answers, self.context, self.threads)


class Settings(_Settings):
    """Everything `mom serve` can be told."""

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8000, ge=1, le=65535)
    experts: Literal["all"] | list[str] = "all"
    slices: Path | None = None
    generalist: str | None = None
    type: str | None = None
    embedder: str | None = None
    router: Path | None = None
    thresholds: Cutoffs = Cutoffs()
    policy: Preference = Preference()
    limits: Limits = Limits()
    access: Access = Access()
    logs: Logs = Logs()
    default: Scaling = Scaling()
    overrides: dict[str, Scaling] = {}
    runtime: str = Field(
        default="slices.runtimes.open:open_batcher", pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
    )
    address: str | None = None

    def scaling(self, expert: str) -> Scaling:
        """How `expert` is scaled: its own words over the default ones."""
        own = self.overrides.get(expert)
        if own is None:
            return self.default
        return Scaling.model_validate(self.default.model_dump() | own.model_dump(exclude_unset=True))


def read(path: Path | None = None) -> Settings:
    """The settings in `path` (default: the first `serve.yaml` among the config folders).

    Raises:
        BadSettings: it is not there, not YAML, or a field is unknown or wrong; the field is named.
    """
    source = path or home.find_config("serve.yaml")
    try:
        said = yaml.safe_load(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSettings(f"cannot read {source}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadSettings(f"{source} is not YAML: {' '.join(str(error).split())}") from None
    try:
        return Settings.model_validate({} if said is None else said)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadSettings(f"{source}: {where}: {first['msg']}") from None


def with_cutoffs(router: Router, cutoffs: Cutoffs) -> Router:
    """`router` with the thresholds that the settings name."""
    from dataclasses import asdict, replace

    own = {name: value for name, value in cutoffs.model_dump().items() if value is not None}
    return replace(router, thresholds=Thresholds(**(asdict(router.thresholds) | own)))
