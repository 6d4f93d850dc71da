"""The service on Ray Serve: each expert a deployment of its own, and one ingress that routes.

Starts and stops things and prints nothing; what the service says is `router.app`'s, what runs in a
replica `router.replica`'s. Ray is imported only where it is used.
"""

import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from fastapi import FastAPI

from router import build
from router.app import Service, build_app
from router.catalogue import Catalogue, Expert
from router.errors import BadSettings, ExpertFailed
from router.model import Router
from router.remember import Remembering
from router.replica import IN_FLIGHT, ExpertReplica, RayEngine, import_runtime
from router.settings import Scaling, Settings
from slices.errors import MissingExtra

APP = "mom"
INGRESS = "_ingress"  # no slice may be called so
INGRESS_CPUS = 0.1


@dataclass(frozen=True)
class Plan:
    """Everything that was checked before anything starts."""

    settings: Settings
    catalogue: Catalogue
    router: Router


def check(settings: Settings, domains: build.Queries | None = None) -> Plan:
    """Settle who is served by whom, and fit the router if need be, before anything is started.

    Raises:
        BadSettings, BadExperts, BadRouter, BadTraining, MissingExtra: what is wrong, in one sentence.
    """
    if find_spec("ray") is None:
        raise MissingExtra("ray", "serve")
    served = build.served_by(settings)
    if unknown := sorted(set(settings.overrides) - set(served.experts)):
        raise BadSettings(f"`overrides` name experts that are not served: {', '.join(unknown)}")
    for name in served.experts:
        _check_autoscaling(name, settings.scaling(name))
    import_runtime(settings.runtime)
    _check_port(settings.host, settings.port)
    router = build.current_router(settings, build.domain_queries() if domains is None else domains)
    return Plan(settings, served, router)


def run(plan: Plan) -> str:
    """Start Ray and every deployment; return the service's URL when all are ready.

    Raises:
        ExpertFailed: a deployment did not come up. Nothing is left running.
        BadSettings: the experts book more GPUs than there are.
    """
    try:
        _start_ray(plan)
        _deploy(plan)
    except BaseException:
        shutdown()
        raise
    return f"http://{plan.settings.host}:{plan.settings.port}"


def shutdown() -> None:
    """Stop the deployments, and Ray with them. Does nothing where nothing runs."""
    import ray
    from ray import serve
    from ray.serve.exceptions import RayServeException

    if ray.is_initialized():
        with suppress(RayServeException):  # Serve itself has not started
            serve.delete(APP)
        ray.shutdown()


def serve_forever(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `ready` is called with the URL once. Call it in the main thread.

    Raises:
        RouterError, SliceError: what kept it from starting, in one sentence.
    """
    plan = check(settings)
    url = run(plan)
    stop = threading.Event()
    before = {kind: signal.signal(kind, lambda *_: stop.set()) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        ready(url)
        while not stop.wait(1.0):  # a wait without end would not let Python see the signal
            pass
    finally:
        shutdown()
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _start_ray(plan: Plan) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = plan.settings.address
    if address is not None:
        ray.init(address=address, **quiet)
    else:
        cpus = max(os.cpu_count() or 1, math.ceil(_booked(plan, "num_cpus") + INGRESS_CPUS))
        ray.init(include_dashboard=False, _node_ip_address="127.0.0.1", num_cpus=cpus, **quiet)
    wanted, there = _booked(plan, "num_gpus"), ray.cluster_resources().get("GPU", 0.0)
    if wanted > there:
        raise BadSettings(f"the experts book {wanted:g} GPUs (num_gpus), but Ray sees {there:g}")


def _deploy(plan: Plan) -> None:
    from ray import serve
    from ray.serve.schema import LoggingConfig

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    http = {"host": plan.settings.host, "port": plan.settings.port}
    serve.start(proxy_location="HeadOnly", http_options=http, logging_config=quiet)
    try:
        serve.run(_application(plan), name=APP, logging_config=quiet)
    except RuntimeError as error:
        raise ExpertFailed(_complaint() or f"the service did not start: {error}") from error


def _application(plan: Plan) -> Any:
    """The ingress bound to every expert's deployment."""
    from ray import serve

    experts = plan.catalogue.experts

    def asgi() -> FastAPI:
        handles = {name: serve.get_deployment_handle(name, app_name=APP) for name in experts}
        reader = Remembering(build.reader_of(plan.router, plan.settings))
        engine = RayEngine(handles)
        return build_app(
            Service(reader, plan.router.thresholds, plan.catalogue, engine, plan.settings.limits)
        )

    ingress = serve.deployment(
        name=INGRESS,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": INGRESS_CPUS},
        max_constructor_retry_count=1,
        graceful_shutdown_timeout_s=2,
        graceful_shutdown_wait_loop_s=0.1,
    )(serve.ingress(asgi)())
    return ingress.bind(*(_expert(expert, plan.settings) for expert in experts.values()))


def _expert(expert: Expert, settings: Settings) -> Any:
    from ray import serve

    scaling = settings.scaling(expert.name)
    replicas: dict[str, Any] = {"num_replicas": scaling.num_replicas}
    if scaling.autoscaling is not None:
        replicas = {"autoscaling_config": scaling.autoscaling}
    deployment = serve.deployment(
        name=expert.name,
        max_ongoing_requests=IN_FLIGHT,
        max_queued_requests=scaling.queue,
        ray_actor_options={"num_cpus": scaling.num_cpus, "num_gpus": scaling.num_gpus},
        max_constructor_retry_count=1,
        graceful_shutdown_timeout_s=2,
        graceful_shutdown_wait_loop_s=0.1,
        **replicas,
    )(ExpertReplica)
    return deployment.bind(expert, settings.runtime)


def _check_autoscaling(name: str, scaling: Scaling) -> None:
    if scaling.autoscaling is None:
        return
    from pydantic import ValidationError
    from ray.serve.config import AutoscalingConfig

    try:
        AutoscalingConfig(**scaling.autoscaling)
    except (ValidationError, TypeError, ValueError) as error:
        raise BadSettings(f"the autoscaling of {name}: {' '.join(str(error).split())}") from None


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


def _complaint() -> str | None:
    """Which deployment failed and its own error, taken out of Ray's traceback."""
    from ray import serve

    for name, deployment in serve.status().applications[APP].deployments.items():
        lines = [line.strip() for line in deployment.message.splitlines() if line.strip()]
        if "FAILED" in deployment.status or "UNHEALTHY" in deployment.status:
            return f"{name} did not start: {lines[-1] if lines else 'no reason given'}"
    return None
