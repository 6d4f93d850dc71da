"""The configuration for a Ray cluster (`serve deploy`): an application for each expert and the ingress.

Each machine of the cluster needs mom installed, and the slices, your own domain files, the router and
`serve.yaml`'s other files under the same paths; the router that ships comes with mom. The plan is checked
when the configuration is written, and once more where each application is built.
"""

from pathlib import Path
from typing import Any

from router.errors import BadSettings
from router.routing import store
from router.serving import applications, build
from router.serving.applications import DeployPlan
from router.serving.default_router import ships_for
from router.settings import Settings
from slices import home


def configuration(plan: DeployPlan) -> dict[str, Any]:
    """Ray Serve's configuration of `plan`: its experts, then the ingress."""
    folders: dict[str, Path | None] = {
        "slices": plan.settings.slices or home.slices_home(),
        "router": plan.settings.router,
    }
    if plan.settings.router is None and not ships_for(plan.settings.embedder):
        folders["router"] = store.default_folder()
    settings = plan.settings.model_copy(update=folders).model_dump(mode="json")
    settings |= {"experts": sorted(plan.catalogue.experts)}
    experts = [
        {
            "name": applications.application_name(name),
            "route_prefix": None,
            "import_path": f"{__name__}:expert",
            "args": {"name": name, "settings": settings},
        }
        for name in settings["experts"]
    ]
    ingress = {
        "name": applications.APP,
        "route_prefix": "/",
        "import_path": f"{__name__}:ingress",
        "args": {"settings": settings},
    }
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": plan.settings.host, "port": plan.settings.port},
        "logging_config": {"log_level": "WARNING", "enable_access_log": False},
        "applications": [*experts, ingress],
    }


def expert(args: dict[str, Any]) -> Any:
    """The application of the expert `args["name"]`.

    Raises:
        BadSettings, BadExperts: it is not among those of `args["settings"]`, or they do not fit together.
    """
    settings, name = Settings.model_validate(args["settings"]), args["name"]
    experts = build.served_catalogue(settings).experts
    if name not in experts:
        raise BadSettings(f"no expert {name!r} on this machine; there are: {', '.join(experts)}")
    return applications.expert_application(experts[name], settings)


def ingress(args: dict[str, Any]) -> Any:
    """The ingress's application, with the router that `args["settings"]` names.

    Raises:
        BadExperts, BadRouter: what is wrong, in one sentence.
    """
    settings = Settings.model_validate(args["settings"])
    catalogue = build.served_catalogue(settings)
    router = build.load_or_fit_router(settings)
    return applications.ingress_application(DeployPlan(settings, catalogue, router))
