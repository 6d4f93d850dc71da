"""What runs on Ray Serve: each expert an application of one deployment, and one ingress that routes.

So experts come and go one by one. Ray is imported only where it is used.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from time import sleep
from typing import Any

from fastapi import FastAPI

from router.api.app import Service, build_app
from router.api.middleware.access_log import default_file, open_log
from router.api.middleware.api_keys import read as keys_of
from router.api.middleware.auth import IdLeftOut
from router.api.middleware.tracing import exporting
from router.embedding.sentence import SentenceEmbedder
from router.engine.ray_replica import ExpertReplica, RayEngine, taken_on
from router.errors import ExpertFailed
from router.experts.catalogue import Catalogue, Expert
from router.routing.model import Router
from router.routing.prediction_cache import Remembering
from router.serving import build
from router.settings import Settings

APP = "mom"
INGRESS = "_ingress"  # no slice may be called so
INGRESS_CPUS = 0.1
HEALTH_SECONDS = 1.0  # between two looks at a replica: one that was killed is missed so soon
DRAIN_SECONDS = 60  # that what is replaced or taken out may go on with what it answers


@dataclass(frozen=True)
class Plan:
    """Everything that was checked before anything starts."""

    settings: Settings
    catalogue: Catalogue
    router: Router


def start(plan: Plan) -> None:
    """Start Serve itself, listening.

    Raises:
        ExpertFailed: it does not.
    """
    from ray import serve
    from ray.exceptions import RayError

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    http = {"host": plan.settings.host, "port": plan.settings.port}
    try:
        serve.start(proxy_location="HeadOnly", http_options=http, logging_config=_quiet())
    except RayError as error:
        raise ExpertFailed(f"Ray Serve did not start: {type(error).__name__}") from error


def experts(plan: Plan, names: Iterable[str]) -> dict[str, str]:
    """Start these experts, or new ones in the place of those of their names, all at a time.

    Returns:
        Those that did not start, and why.
    """
    from ray import serve

    wanted = sorted(names)
    targets = [
        serve.RunTarget(
            expert(plan.catalogue.experts[name], plan.settings),
            name=app(name),
            route_prefix=None,
            logging_config=_quiet(),
        )
        for name in wanted
    ]
    if targets:
        serve.run_many(targets, wait_for_applications_running=False)
    return {name: why for name in wanted if (why := _outcome(app(name)))}


def ingress(plan: Plan) -> None:
    """Start an ingress for the experts, which run already, in the place of the one that there may be."""
    from ray import serve

    serve.run_many([serve.RunTarget(front(plan), name=APP, logging_config=_quiet())],
                   wait_for_applications_running=False)  # fmt: skip
    if why := _outcome(APP):
        raise ExpertFailed(f"the service did not start: {why}")


def remove(names: Iterable[str]) -> None:
    """Take out these experts; each finishes what it answers."""
    from ray import serve

    for name in names:
        serve.delete(app(name), _blocking=False)


def remove_all() -> None:
    """Take out everything that is ours, waiting for nothing."""
    from ray import serve

    for name in serve.status().applications:
        if name == APP or name.startswith(f"{APP}-"):
            serve.delete(name, _blocking=False)


def app(name: str) -> str:
    """The name of an expert's application."""
    return f"{APP}-{name}"


def spec(plan: Plan, name: str) -> Any:
    """What an expert is deployed from; None where there is none of that name."""
    expert = plan.catalogue.experts.get(name)
    return None if expert is None else (expert, plan.settings.scaling(name))


def _quiet() -> Any:
    from ray.serve.schema import LoggingConfig

    return LoggingConfig(log_level="WARNING", enable_access_log=False)


def front(plan: Plan) -> Any:
    """The ingress's application, with a handle to every expert."""
    from ray import serve

    access = plan.settings.access
    keys = keys_of(access.keys) if access.keys else None

    def asgi() -> FastAPI:
        names = plan.catalogue.experts
        handles = {name: serve.get_deployment_handle(name, app_name=app(name)) for name in names}
        cascade = build.reader_of(plan.router, plan.settings)
        encoder = cascade.dearest if isinstance(cascade.dearest, SentenceEmbedder) else None
        limits, thresholds = plan.settings.limits, plan.router.thresholds
        logs = plan.settings.logs
        service = Service(
            Remembering(cascade),
            thresholds,
            plan.catalogue,
            RayEngine(handles),
            limits,
            keys,
            access.per_minute,
            encoder=encoder,
            log=open_log(logs.file or default_file()) if logs.access else None,
            log_prompts=logs.prompts,
            traces=exporting() if logs.traces else None,
        )
        found = build_app(service)
        found.add_middleware(IdLeftOut)
        return found

    return serve.deployment(
        name=INGRESS,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": INGRESS_CPUS},
        max_constructor_retry_count=1,
        max_surge_percent=100,
        health_check_period_s=HEALTH_SECONDS,
        graceful_shutdown_timeout_s=DRAIN_SECONDS,
        graceful_shutdown_wait_loop_s=0.1,
    )(serve.ingress(asgi)()).bind()


def expert(found: Expert, settings: Settings) -> Any:
    """One expert's application."""
    from ray import serve

    scaling = settings.scaling(found.name)
    replicas: dict[str, Any] = {"num_replicas": scaling.num_replicas}
    if scaling.autoscaling is not None:
        replicas = {"autoscaling_config": scaling.autoscaling}
    deployment = serve.deployment(
        name=found.name,
        max_ongoing_requests=taken_on(scaling.capacity),
        max_queued_requests=scaling.queue,
        ray_actor_options={"num_cpus": scaling.num_cpus, "num_gpus": scaling.num_gpus},
        max_constructor_retry_count=1,
        max_surge_percent=100,
        health_check_period_s=HEALTH_SECONDS,
        graceful_shutdown_timeout_s=DRAIN_SECONDS,
        graceful_shutdown_wait_loop_s=0.1,
        **replicas,
    )(ExpertReplica)
    return deployment.bind(found, settings.runtime, scaling.capacity, scaling.nice)


def _outcome(name: str) -> str | None:
    """Wait until an application runs, and why it does not where it failed, out of Ray's traceback."""
    from ray import serve
    from ray.serve.schema import ApplicationStatus as Status

    while True:
        told = serve.status().applications.get(name)
        if told is not None and told.status == Status.RUNNING:
            return None
        if told is not None and told.status in (Status.DEPLOY_FAILED, Status.UNHEALTHY):
            said = [each.message for each in told.deployments.values() if each.message] or [told.message]
            lines = [line.strip() for line in said[0].splitlines() if line.strip()]
            return lines[-1] if lines else "no reason given"
        sleep(0.1)
