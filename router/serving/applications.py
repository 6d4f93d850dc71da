"""Ray Serve applications: one for each expert, of one deployment, and the ingress that routes between them.

So experts are deployed and deleted one by one. Ray is imported only where it is used.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from time import sleep
from typing import Any

from fastapi import FastAPI

from router.api.app import Service, build_app
from router.api.middleware.access_log import default_file, open_log
from router.api.middleware.api_keys import ApiKeys
from router.api.middleware.api_keys import read as read_api_keys
from router.api.middleware.auth import StripRequestId
from router.api.middleware.tracing import otlp_provider
from router.embedding.stack import text_encoder
from router.engine.ray_replica import ExpertReplica, RayEngine, max_ongoing_requests
from router.errors import ExpertFailed
from router.experts.catalogue import Catalogue, Expert
from router.routing.model import Router
from router.routing.prediction_cache import PredictionCache
from router.serving import build
from router.settings import Settings

APP = "mom"
INGRESS = "_ingress"  # no slice may have this name
INGRESS_CPUS = 0.1
_DEPLOYMENT = {
    "max_constructor_retry_count": 1,
    "max_surge_percent": 100,
    "health_check_period_s": 1.0,  # a replica that was killed is missed so soon
    "graceful_shutdown_timeout_s": 60,  # for the requests of what is replaced or deleted
    "graceful_shutdown_wait_loop_s": 0.1,
}


@dataclass(frozen=True)
class DeployPlan:
    """What is to be deployed, checked before anything starts."""

    settings: Settings
    catalogue: Catalogue
    router: Router


def start_serve(plan: DeployPlan) -> None:
    """Start Ray Serve itself, listening.

    Raises:
        ExpertFailed: it does not start.
    """
    from ray import serve
    from ray.exceptions import RayError

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    http = {"host": plan.settings.host, "port": plan.settings.port}
    try:
        serve.start(proxy_location="HeadOnly", http_options=http, logging_config=_logging_config())
    except RayError as error:
        raise ExpertFailed(f"Ray Serve did not start: {type(error).__name__}") from error


def deploy_experts(plan: DeployPlan, names: Iterable[str]) -> dict[str, str]:
    """Deploy these experts at the same time, in place of those with their names, and wait for them.

    Returns:
        The errors of those that did not start, by name.
    """
    from ray import serve

    experts = sorted(names)
    targets = [
        serve.RunTarget(
            expert_application(plan.catalogue.experts[name], plan.settings),
            name=application_name(name),
            route_prefix=None,
            logging_config=_logging_config(),
        )
        for name in experts
    ]
    if targets:
        serve.run_many(targets, wait_for_applications_running=False)
    return {name: error for name in experts if (error := _wait_until_running(application_name(name)))}


def deploy_ingress(plan: DeployPlan) -> None:
    """Deploy an ingress for the experts, which run already, in place of the present one, and wait for it.

    Raises:
        ExpertFailed: it does not start.
    """
    from ray import serve

    target = serve.RunTarget(ingress_application(plan), name=APP, logging_config=_logging_config())
    serve.run_many([target], wait_for_applications_running=False)
    if error := _wait_until_running(APP):
        raise ExpertFailed(f"the service did not start: {error}")


def delete_experts(names: Iterable[str]) -> None:
    """Delete these experts without waiting; each finishes its running requests."""
    from ray import serve

    for name in names:
        serve.delete(application_name(name), _blocking=False)


def delete_all() -> None:
    """Delete all applications of mom without waiting."""
    from ray import serve

    for name in serve.status().applications:
        if name == APP or name.startswith(f"{APP}-"):
            serve.delete(name, _blocking=False)


def application_name(expert: str) -> str:
    """The name of an expert's application."""
    return f"{APP}-{expert}"


def deployment_spec(plan: DeployPlan, name: str) -> Any:
    """What an expert's deployment depends on, to compare; None if there is no such expert."""
    expert = plan.catalogue.experts.get(name)
    return None if expert is None else (expert, plan.settings.scaling(name))


def ingress_application(plan: DeployPlan) -> Any:
    """The ingress's application, with a handle to every expert."""
    from ray import serve

    access = plan.settings.access
    api_keys = read_api_keys(access.keys) if access.keys else None

    def asgi() -> FastAPI:
        app = build_app(_service(plan, api_keys))
        app.add_middleware(StripRequestId)
        return app

    return serve.deployment(
        name=INGRESS,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": INGRESS_CPUS},
        **_DEPLOYMENT,
    )(serve.ingress(asgi)()).bind()


def _service(plan: DeployPlan, api_keys: ApiKeys | None) -> Service:
    """The service, built in the ingress's own process."""
    from ray import serve

    names, logs = plan.catalogue.experts, plan.settings.logs
    handles = {name: serve.get_deployment_handle(name, app_name=application_name(name)) for name in names}
    cascade = build.open_cascade(plan.router, plan.settings)
    cascade.load()
    vocabulary_fit = build.vocabulary_fit(plan.catalogue, plan.settings)
    vocabulary_fit.load()
    return Service(
        predictor=PredictionCache(cascade),
        thresholds=plan.router.thresholds,
        catalogue=plan.catalogue,
        engine=RayEngine(handles),
        limits=plan.settings.limits,
        misfit=vocabulary_fit.misfit,
        api_keys=api_keys,
        requests_per_minute=plan.settings.access.requests_per_minute,
        encoder=text_encoder(cascade.last_embedder, plan.settings.embedder),
        access_log=open_log(logs.file or default_file()) if logs.access else None,
        log_prompts=logs.prompts,
        tracer_provider=otlp_provider() if logs.traces else None,
    )


def expert_application(expert: Expert, settings: Settings) -> Any:
    """One expert's application."""
    from ray import serve

    scaling = settings.scaling(expert.name)
    replicas: dict[str, Any] = {"num_replicas": scaling.num_replicas}
    if scaling.autoscaling is not None:
        replicas = {"autoscaling_config": scaling.autoscaling}
    deployment = serve.deployment(
        name=expert.name,
        max_ongoing_requests=max_ongoing_requests(scaling.capacity),
        max_queued_requests=scaling.max_queued_requests,
        ray_actor_options={"num_cpus": scaling.num_cpus, "num_gpus": scaling.num_gpus},
        **_DEPLOYMENT,
        **replicas,
    )(ExpertReplica)
    return deployment.bind(
        expert=expert, runtime=settings.runtime, capacity=scaling.capacity, nice=scaling.nice
    )


def _logging_config() -> Any:
    from ray.serve.schema import LoggingConfig

    return LoggingConfig(log_level="WARNING", enable_access_log=False)


def _wait_until_running(application: str) -> str | None:
    """Wait until an application runs; if it fails, the last line of Ray's traceback."""
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    failures = (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY)
    while True:
        overview = serve.status().applications.get(application)
        if overview is not None and overview.status == ApplicationStatus.RUNNING:
            return None
        if overview is not None and overview.status in failures:
            messages = [each.message for each in overview.deployments.values() if each.message]
            return _last_line((messages or [overview.message])[0])
        sleep(0.1)


def _last_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
