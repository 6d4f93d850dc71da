"""Versions of the packages that determine results: for slice.json and the keys of caches."""

import importlib.metadata
import json
import platform

PACKAGES = ("mom-slicer", "numpy", "tokenizers", "torch", "transformers", "llama-cpp-python")
_RUNTIMES = ("torch", "transformers", "llama-cpp-python")


def versions() -> dict[str, str]:
    """Versions of Python and of the installed `PACKAGES`."""
    found = {name: version for name in PACKAGES if (version := _version(name))}
    return {"python": platform.python_version(), **found}


def runtime_versions() -> str:
    """Versions of what runs and quantizes models, as JSON: measurements of others are made again."""
    return json.dumps({name: _version(name) for name in _RUNTIMES}, sort_keys=True)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
