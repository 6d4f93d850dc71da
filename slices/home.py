"""File locations: built models and slices, and the configs that describe domains.

Everything built is stored under `$MOM_HOME` (default: the platform's data folder), never in the repository.
Configs are looked up in the user's `./configs`, then `$MOM_HOME/configs`, then in what the package ships.
"""

import os
import re
from pathlib import Path

import platformdirs

from slices.errors import BadConfig, NotFound

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def home() -> Path:
    """The folder of everything that is built: `$MOM_HOME`, else the platform's data folder.

    On Linux that is `~/.local/share/mom`, or below `$XDG_DATA_HOME` where that is set.
    """
    return Path(os.environ.get("MOM_HOME") or platformdirs.user_data_path("mom", appauthor=False))


def slices_home() -> Path:
    """Where slices go that are given no `-o`."""
    return home() / "slices"


def models_home() -> Path:
    """Where parents go that `mom` builds itself."""
    return home() / "models"


def check_name(name: str) -> str:
    """Return `name` if it is safe as a folder and a model id.

    Raises:
        BadConfig: it is empty, too long, or could lead out of its folder.
    """
    if not _NAME.fullmatch(name):
        raise BadConfig(
            f"the name {name!r} is not usable: expected 1 to 64 letters, digits, '.', '_' or '-', "
            "starting with a letter or digit"
        )
    return name


def config_dirs() -> list[Path]:
    """Folders that may hold `domains/` and `serve.yaml`, the user's own first."""
    return [Path("configs"), home() / "configs", shipped_configs()]


def shipped_configs() -> Path:
    """The configs that came with the package: inside the wheel, else the clone's top level."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def find_config(relative: str) -> Path:
    """The first file called `relative` in `config_dirs()`.

    Raises:
        NotFound: no folder holds it.
    """
    for folder in config_dirs():
        if (folder / relative).is_file():
            return folder / relative
    looked = ", ".join(str(folder) for folder in config_dirs())
    raise NotFound(f"no config file {relative!r} in {looked}")
