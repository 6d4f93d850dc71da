"""The built wheel carries the configs, so that `mom` works outside the clone."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return next(out.glob("*.whl"))


def test_wheel_holds_packages_and_configs_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "slices/configs/domains/biochem.yaml" in names
    assert "slices/configs/serve.yaml" in names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"mom", "slices", "router"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_domains_and_settings_are_found_outside_the_clone(wheel: Path, tmp_path: Path) -> None:
    """Unpacked elsewhere, first on the path, and run from an empty folder."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    empty = tmp_path / "empty"
    empty.mkdir()
    code = (
        "import slices; assert 'site' in slices.__file__, slices.__file__\n"
        "from slices import home; from slices.text import domains; from router import settings\n"
        "from router.training.example_queries import read_example_queries\n"
        "from router.serving.default_router import load_default\n"
        "print(len(domains.names()), len(read_example_queries(['biochem'])) > 300, settings.read().port)\n"
        "print(len(load_default(None).classes))\n"
        "print(home.find_config('serve.yaml'))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | {"PYTHONPATH": str(site)},
        cwd=empty,
        capture_output=True,
        text=True,
        check=True,
    )
    first, classes, second = done.stdout.splitlines()
    assert (first, classes) == ("11 True 8000", "11")
    assert Path(second) == site / "slices" / "configs" / "serve.yaml"
