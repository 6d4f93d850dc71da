"""Versions in records and cache keys."""

import importlib.metadata
import json
import platform

from slices.versions import PACKAGES, runtime_versions, versions


def test_records_name_what_is_installed() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == importlib.metadata.version("torch")
    assert set(found) - {"python"} <= set(PACKAGES)


def test_cache_keys_name_the_runtimes() -> None:
    found = json.loads(runtime_versions())
    assert found == {name: importlib.metadata.version(name) for name in found}
    assert set(found) == {"torch", "transformers", "llama-cpp-python"}
