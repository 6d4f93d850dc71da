"""The service as `serve deploy` wants it: one configuration for a Ray cluster, an application an expert.

Each machine of the cluster needs mom installed, and the slices, the router and `serve.yaml`'s other files
under the same paths. What is served by whom is checked when the configuration is written, and once more
where each application is built.
"""

from typing import Any

from router.errors import BadSettings
from router.routing import store
from router.serving import applications, build
from router.serving.applications import Plan
from router.settings import Settings
from slices import home


def configuration(plan: Plan) -> dict[str, Any]:
    """What `serve deploy` reads: the experts that `plan` knows, then the ingress."""
    folders = {"slices": plan.settings.slices or home.slices_home(),
               "router": plan.settings.router or store.default_folder()}  # fmt: skip
    told = plan.settings.model_copy(update=folders).model_dump(mode="json")
    told |= {"experts": sorted(plan.catalogue.experts)}
    experts = [
        {"name": applications.app(name), "route_prefix": None, "import_path": f"{__name__}:expert",
         "args": {"name": name, "settings": told}}
        for name in told["experts"]
    ]  # fmt: skip
    front = {"name": applications.APP, "route_prefix": "/", "import_path": f"{__name__}:ingress",
             "args": {"settings": told}}  # fmt: skip
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": plan.settings.host, "port": plan.settings.port},
        "logging_config": {"log_level": "WARNING", "enable_access_log": False},
        "applications": [*experts, front],
    }


def expert(args: dict[str, Any]) -> Any:
    """The application of the expert `args["name"]`.

    Raises:
        BadSettings, BadExperts: it is not among those of `args["settings"]`, or they do not fit together.
    """
    settings, name = Settings.model_validate(args["settings"]), args["name"]
    found = build.served_by(settings).experts
    if name not in found:
        raise BadSettings(f"no expert {name!r} on this machine; there are: {', '.join(found)}")
    return applications.expert(found[name], settings)


def ingress(args: dict[str, Any]) -> Any:
    """The application that routes, with the router that `args["settings"]` names.

    Raises:
        BadExperts, BadRouter: what is wrong, in one sentence.
    """
    settings = Settings.model_validate(args["settings"])
    served = build.served_by(settings)
    router = build.current_router(settings, {})
    return applications.front(Plan(settings, served, router))
