"""Fixtures that every test may use: a home of its own, and pico models of the real classes."""

import sys
from pathlib import Path

import pytest

from tests.picos import write_gemma3, write_gemma4

E4B_TYPES = (["sliding_attention"] * 5 + ["full_attention"]) * 7


def pytest_unconfigure() -> None:
    """llama_cpp opens /dev/null on import and never closes it; let pytest's own line be the last one."""
    utils = sys.modules.get("llama_cpp._utils")
    for name in ("outnull_file", "errnull_file"):
        if utils is not None and hasattr(utils, name):
            getattr(utils, name).close()


@pytest.fixture(autouse=True)
def mom_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing that a test builds outlives it."""
    home = tmp_path / "home"
    monkeypatch.setenv("MOM_HOME", str(home))
    monkeypatch.delenv("MOM_MODEL", raising=False)
    return home


@pytest.fixture(scope="session")
def pico_e4b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """E4B's shape in small: 42 layers 5:1, 18 sharing K/V from layers 22 and 23, per-layer embeddings."""
    return write_gemma4(tmp_path_factory.mktemp("parent") / "pico-e4b", E4B_TYPES, num_kv_shared_layers=18)


@pytest.fixture(scope="session")
def pico_gemma3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma 3 of 6 layers, the last full."""
    types = ["sliding_attention"] * 5 + ["full_attention"]
    return write_gemma3(
        tmp_path_factory.mktemp("parent") / "pico-gemma3", types, hidden_size=32, intermediate_size=64
    )
