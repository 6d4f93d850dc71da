"""The service on Ray Serve, from checking what is to be served to stopping it.

Starts and stops things and prints nothing; what is deployed is `router.serving.applications`'s. Ray is
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
from router.serving.applications import INGRESS_CPUS, Plan
from router.settings import Scaling, Settings
from slices.errors import MissingExtra


@dataclass(frozen=True)
class Running:
    """A service that is up: where, what it serves, and which experts did not start, and why."""

    url: str
    plan: Plan
    failed: Mapping[str, str]


def check(settings: Settings, domains: build.Queries | None = None, listening: bool = False) -> Plan:
    """Settle who is served by whom, and fit the router if need be, before anything is started.

    Args:
        listening: whether the port is this service's already.

    Raises:
        BadSettings, BadExperts, BadRouter, BadTraining, MissingExtra: what is wrong, in one sentence.
    """
    if find_spec("ray") is None:
        raise MissingExtra("ray", "serve")
    ray_env.prepare(alone=settings.address is None)
    if settings.logs.traces:
        tracing.check_installed()
    served = build.served_by(settings)
    if unknown := sorted(set(settings.overrides) - set(served.experts)):
        raise BadSettings(f"`overrides` name experts that are not served: {', '.join(unknown)}")
    for name in served.experts:
        _check_autoscaling(name, settings.scaling(name))
    import_runtime(settings.runtime)
    _check_access(settings)
    if not listening:
        _check_port(settings.host, settings.port)
    router = build.current_router(settings, build.domain_queries() if domains is None else domains)
    return Plan(settings, served, router)


def run(plan: Plan) -> Running:
    """Start Ray and every deployment, and wait for all. An expert that does not start is left out.

    Raises:
        ExpertFailed: the service did not come up. Nothing is left running.
        BadExperts: the generalist did not start; the same.
        BadSettings: the experts book more GPUs than there are.
    """
    try:
        _start_ray(plan)
        applications.start(plan)
        failed = applications.experts(plan, plan.catalogue.experts)
        applications.remove(failed)
        plan = replace(plan, catalogue=without(plan.catalogue, failed))
        applications.ingress(plan)
    except BaseException:
        shutdown()
        raise
    return Running(f"http://{plan.settings.host}:{plan.settings.port}", plan, failed)


def reload(plan: Plan, settings: Settings, domains: build.Queries | None = None) -> Plan:
    """Serve what there is now, dropping no request: new experts start first, then an ingress that knows them
    takes the place of the old one, then those that are gone finish what they answer. The rest stays.

    Host, port, cluster and runtime remain those of `plan`.

    Raises:
        RouterError, SliceError: what is wrong; the service goes on as it was.
    """
    kept = {name: getattr(plan.settings, name) for name in ("host", "port", "address", "runtime")}
    new = check(settings.model_copy(update=kept), domains, listening=True)
    changed = [
        name
        for name in new.catalogue.experts
        if applications.spec(new, name) != applications.spec(plan, name)
    ]
    if failed := applications.experts(new, changed):
        _experts_back(plan, changed)
        raise ExpertFailed("; ".join(f"{name} did not start: {why}" for name, why in failed.items()))
    try:
        applications.ingress(new)
    except ExpertFailed:
        applications.ingress(plan)
        _experts_back(plan, changed)
        raise
    applications.remove(set(plan.catalogue.experts) - set(new.catalogue.experts))
    return new


def _experts_back(plan: Plan, changed: Iterable[str]) -> None:
    """The experts of `plan` in the place of those that a failed reload changed."""
    applications.remove(set(changed) - set(plan.catalogue.experts))
    applications.experts(plan, set(changed) & set(plan.catalogue.experts))


def shutdown() -> None:
    """Stop the deployments, and Ray with them. Does nothing where nothing runs."""
    import ray
    from ray.serve.exceptions import RayServeException

    if ray.is_initialized():
        with suppress(RayServeException):  # Serve itself has not started
            applications.remove_all()
        ray.shutdown()


def _start_ray(plan: Plan) -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = plan.settings.address
    if address is not None:
        ray.init(address=address, **quiet)
    else:
        cpus = max(os.cpu_count() or 1, math.ceil(_booked(plan, "num_cpus") + INGRESS_CPUS))
        ray.init(include_dashboard=False, num_cpus=cpus, **quiet)
    wanted, there = _booked(plan, "num_gpus"), ray.cluster_resources().get("GPU", 0.0)
    if wanted > there:
        raise BadSettings(f"the experts book {wanted:g} GPUs (num_gpus), but Ray sees {there:g}")


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
    elif settings.host != "localhost" and not ip_address(_plain(settings.host)).is_loopback:
        raise BadSettings(
            f"on {settings.host} anyone could ask: make a key with `mom key new NAME` and set "
            f"`access: {{keys: {api_keys.default_file()}}}` in serve.yaml, or serve on 127.0.0.1"
        )


def _plain(host: str) -> str:
    """An address to judge by; a name stands for any other machine."""
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


def _booked(plan: Plan, resource: str) -> float:
    total = 0.0
    for name in plan.catalogue.experts:
        scaling = plan.settings.scaling(name)
        replicas = (scaling.autoscaling or {}).get("max_replicas", scaling.num_replicas)
        total += replicas * getattr(scaling, resource)
    return total
