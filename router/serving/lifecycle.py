"""Life cycle of the service on Ray Serve: check, run, reload, shut down.

Prints nothing; the applications themselves are in `router.serving.applications`. Ray is
imported only where it is used.
"""

import logging
import math
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any

from router.api.middleware import api_keys, tracing
from router.engine.ray_replica import import_runtime
from router.errors import BadSettings, ExpertFailed
from router.experts.catalogue import without
from router.serving import applications, build, ray_env
from router.serving.applications import INGRESS_CPUS, DeployPlan
from router.settings import Scaling, Settings
from slices.errors import MissingExtra


@dataclass(frozen=True)
class RunningService:
    """A running service: its URL, its plan, and the errors of experts that did not start."""

    url: str
    plan: DeployPlan
    failed: Mapping[str, str]


def check(settings: Settings, domains: build.Queries | None = None, listening: bool = False) -> DeployPlan:
    """Check the settings and plan the deployment, fitting the router if needed, before anything starts.

    Args:
        listening: whether the port is this service's already, so that it is not probed.

    Raises:
        BadSettings, BadExperts, BadRouter, BadTraining, MissingExtra: what is wrong, in one sentence.
    """
    if find_spec("ray") is None:
        raise MissingExtra("ray", "serve")
    ray_env.prepare(private=settings.ray_address is None)
    if settings.logs.traces:
        tracing.check_installed()
    catalogue = build.served_catalogue(settings)
    if unknown := sorted(set(settings.overrides) - set(catalogue.experts)):
        raise BadSettings(f"`overrides` name experts that are not served: {', '.join(unknown)}")
    for name in catalogue.experts:
        _check_autoscaling(name, settings.scaling(name))
    import_runtime(settings.runtime)
    _check_access(settings)
    if not listening:
        _check_port(settings.host, settings.port)
    router = build.load_or_fit_router(settings, domains)
    return DeployPlan(settings, catalogue, router)


def run(plan: DeployPlan) -> RunningService:
    """Start Ray and every deployment, and wait for all. An expert that does not start is left out.

    Raises:
        ExpertFailed: the service did not come up. Nothing is left running.
        BadExperts: the generalist did not start; the same.
        BadSettings: the experts reserve more GPUs than there are.
    """
    try:
        _start_ray(plan)
        applications.start_serve(plan)
        failed = applications.deploy_experts(plan, plan.catalogue.experts)
        applications.delete_experts(failed)
        plan = replace(plan, catalogue=without(plan.catalogue, failed))
        applications.deploy_ingress(plan)
    except BaseException:
        shutdown()
        raise
    return RunningService(f"http://{plan.settings.host}:{plan.settings.port}", plan, failed)


def reload(plan: DeployPlan, settings: Settings, domains: build.Queries | None = None) -> DeployPlan:
    """Redeploy without dropping a request: first the new and changed experts, then the ingress; then deleted
    experts finish their running requests. The rest stays.

    Host, port, Ray address and runtime remain those of `plan`.

    Raises:
        RouterError, SliceError: what is wrong; the service goes on as it was.
    """
    kept = {name: getattr(plan.settings, name) for name in ("host", "port", "ray_address", "runtime")}
    new = check(settings.model_copy(update=kept), domains, listening=True)
    changed = [
        name
        for name in new.catalogue.experts
        if applications.deployment_spec(new, name) != applications.deployment_spec(plan, name)
    ]
    if failed := applications.deploy_experts(new, changed):
        _restore_experts(plan, changed)
        raise ExpertFailed("; ".join(f"{name} did not start: {error}" for name, error in failed.items()))
    try:
        applications.deploy_ingress(new)
    except ExpertFailed:
        applications.deploy_ingress(plan)
        _restore_experts(plan, changed)
        raise
    applications.delete_experts(set(plan.catalogue.experts) - set(new.catalogue.experts))
    return new


def _restore_experts(plan: DeployPlan, changed: Iterable[str]) -> None:
    """Deploy the experts of `plan` in place of those that a failed reload changed."""
    applications.delete_experts(set(changed) - set(plan.catalogue.experts))
    applications.deploy_experts(plan, set(changed) & set(plan.catalogue.experts))


def shutdown() -> None:
    """Stop the deployments, and Ray with them. Does nothing where nothing runs."""
    import ray
    from ray.serve.exceptions import RayServeException

    if ray.is_initialized():
        with suppress(RayServeException):  # Serve itself has not started
            applications.delete_all()
        ray.shutdown()


def _start_ray(plan: DeployPlan) -> None:
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = plan.settings.ray_address
    if address is not None:
        ray.init(address=address, **options)
    else:
        cpus = max(os.cpu_count() or 1, math.ceil(_reserved(plan, "num_cpus") + INGRESS_CPUS))
        ray.init(include_dashboard=False, num_cpus=cpus, **options)
    needed, available = _reserved(plan, "num_gpus"), ray.cluster_resources().get("GPU", 0.0)
    if needed > available:
        raise BadSettings(f"the experts reserve {needed:g} GPUs (num_gpus), but Ray sees {available:g}")


def _check_autoscaling(name: str, scaling: Scaling) -> None:
    if scaling.autoscaling is None:
        return
    from pydantic import ValidationError
    from ray.serve.config import AutoscalingConfig

    try:
        AutoscalingConfig(**scaling.autoscaling)
    except (ValidationError, TypeError, ValueError) as error:
        raise BadSettings(f"the autoscaling of {name}: {' '.join(str(error).split())}") from None


def _check_access(settings: Settings) -> None:
    if settings.access.keys is not None:
        api_keys.read(settings.access.keys)
    elif settings.host != "localhost" and not ip_address(_as_address(settings.host)).is_loopback:
        raise BadSettings(
            f"on {settings.host} anyone could send requests: create a key with `mom key new NAME` and set "
            f"`access: {{keys: {api_keys.default_file()}}}` in serve.yaml, or serve on 127.0.0.1"
        )


def _as_address(host: str) -> str:
    """The IP address of `host`; 0.0.0.0 for a name, which may be any interface."""
    try:
        return str(ip_address(host))
    except ValueError:
        return "0.0.0.0"


def _check_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BadSettings(f"cannot listen on {host}, port {port}: {error.strerror or error}") from None


def _reserved(plan: DeployPlan, resource: str) -> float:
    total = 0.0
    for name in plan.catalogue.experts:
        scaling = plan.settings.scaling(name)
        replicas = (scaling.autoscaling or {}).get("max_replicas", scaling.num_replicas)
        total += replicas * getattr(scaling, resource)
    return total
