"""The settings of the service (`serve.yaml`), validated before anything starts.

Only reads and validates; whether the experts exist is checked by `router.experts.catalogue`.
"""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from router.errors import BadSettings
from router.experts.policy import DEFAULT, Objective, Policy
from router.experts.vocabulary_fit import MAX_TOKEN_RATIO
from router.routing.model import Router, Thresholds
from slices import home
from slices.runtime import Capacity


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ThresholdOverrides(_Settings):
    """Routing thresholds to use instead of the fitted ones; None keeps the fitted one."""

    min_confidence: float | None = Field(default=None, ge=0, le=1)
    min_margin: float | None = Field(default=None, ge=0, le=1)
    min_in_domain: float | None = Field(default=None, ge=0, le=1)


class PolicySettings(_Settings):
    """The assignment policy: see `router.experts.policy.Policy`.

    An expert is not asked a query of more than `max_token_ratio` times as many tokens in its vocabulary as in
    the generalist's; None: never checked.
    """

    prefer: Objective = DEFAULT.prefer
    tolerance: float = Field(default=DEFAULT.tolerance, ge=0, le=1)
    max_token_ratio: float | None = Field(default=MAX_TOKEN_RATIO, ge=1)

    def policy(self) -> Policy:
        """As the catalogue takes it."""
        return Policy(self.prefer, self.tolerance)


class Limits(_Settings):
    """Limits of a request: bytes of its body, tokens of its answer (maximum and default), seconds.

    `first_token_seconds` limits the wait for a slot, and then for the first token, before the fallback.
    """

    body_bytes: int = Field(default=1 << 20, ge=1024)
    max_tokens: int = Field(default=4096, ge=1)
    default_max_tokens: int = Field(default=512, ge=1)
    first_token_seconds: float | None = Field(default=60.0, gt=0)
    deadline_seconds: float | None = Field(default=600.0, gt=0)


class Access(_Settings):
    """Authentication and rate limit: a file of API keys (`mom key`), and requests a minute of each client.

    Without a file every client is accepted, which is allowed on the loopback address alone.
    """

    keys: Path | None = None
    requests_per_minute: int | None = Field(default=None, ge=1)


class Logs(_Settings):
    """The access log and its file; prompts are written only if `prompts`. `traces`: OpenTelemetry spans."""

    access: bool = True
    file: Path | None = None
    prompts: bool = False
    traces: bool = False


class Scaling(_Settings):
    """Replicas of an expert, the resources that each reserves, and its capacity."""

    num_replicas: int = Field(default=1, ge=1)
    num_cpus: float = Field(default=0.1, ge=0)
    num_gpus: float = Field(default=0, ge=0)
    max_queued_requests: int = Field(default=32, ge=1)
    max_num_seqs: int = Field(default=Capacity.max_num_seqs, ge=1, le=64)
    max_model_len: int = Field(default=Capacity.max_model_len, ge=256)
    threads: int | None = Field(default=None, ge=1)
    nice: int = Field(default=10, ge=0, le=19)
    autoscaling: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check_replicas(self) -> "Scaling":
        if self.autoscaling is not None and self.num_replicas != 1:
            raise ValueError("give either num_replicas or autoscaling, not both")
        return self

    @property
    def capacity(self) -> Capacity:
        """The capacity of each replica."""
        return Capacity(
            max_num_seqs=self.max_num_seqs, max_model_len=self.max_model_len, threads=self.threads
        )


class Settings(_Settings):
    """All settings of `mom serve`."""

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8000, ge=1, le=65535)
    experts: Literal["all"] | list[str] = "all"
    slices: Path | None = None
    generalist: str | None = None
    type: str | None = None
    embedder: str | None = None
    router: Path | None = None
    thresholds: ThresholdOverrides = ThresholdOverrides()
    policy: PolicySettings = PolicySettings()
    limits: Limits = Limits()
    access: Access = Access()
    logs: Logs = Logs()
    default: Scaling = Scaling()
    overrides: dict[str, Scaling] = {}
    runtime: str = Field(
        default="slices.runtimes.open:open_batcher", pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
    )
    ray_address: str | None = None

    def scaling(self, expert: str) -> Scaling:
        """The scaling of `expert`: its overrides over the defaults."""
        own = self.overrides.get(expert)
        if own is None:
            return self.default
        return Scaling.model_validate(self.default.model_dump() | own.model_dump(exclude_unset=True))


def read(path: Path | None = None) -> Settings:
    """The settings in `path` (default: the first `serve.yaml` among the config folders).

    Raises:
        BadSettings: it is not there, not YAML, or a setting is unknown or invalid; the setting is named.
    """
    source = path or home.find_config("serve.yaml")
    try:
        loaded = yaml.safe_load(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSettings(f"cannot read {source}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadSettings(f"{source} is not YAML: {' '.join(str(error).split())}") from None
    try:
        return Settings.model_validate({} if loaded is None else loaded)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        message = "unknown setting" if first["type"] == "extra_forbidden" else first["msg"]
        raise BadSettings(f"{source}: {key}: {message}") from None


def override_thresholds(router: Router, overrides: ThresholdOverrides) -> Router:
    """`router` with the thresholds of the settings in place of the fitted ones."""
    from dataclasses import asdict, replace

    changed = {name: value for name, value in overrides.model_dump().items() if value is not None}
    return replace(router, thresholds=Thresholds(**(asdict(router.thresholds) | changed)))
