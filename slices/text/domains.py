"""Domains: a description, topics for generated text, and example queries for routing. Read from YAML."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from slices.errors import BadConfig, NotFound
from slices.home import check_name, config_dirs, find_config


class Domain(BaseModel):
    """One `configs/domains/NAME.yaml`.

    `corpus` holds files or folders, relative to that file's folder. `replaces` names domains that this one
    renames or, if several, merges for the router.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    corpus: list[Path] = []
    topics: list[str] = []
    queries: list[str] = []
    replaces: list[str] = []


def names() -> list[str]:
    """Every domain that can be loaded."""
    return sorted({path.stem for folder in config_dirs() for path in (folder / "domains").glob("*.yaml")})


def load(name: str) -> Domain:
    """The domain called `name`, the user's own file first.

    Raises:
        NotFound: there is none; the known ones are listed.
        BadConfig: its file is not valid YAML or a key is wrong; the key is named.
    """
    path = path_of(name)
    try:
        domain = Domain.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise BadConfig(f"{path}: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}") from None
    if domain.name != name:
        raise BadConfig(f"{path}: its 'name' is {domain.name!r}, expected {name!r}")
    corpus = [entry if entry.is_absolute() else path.parent / entry for entry in domain.corpus]
    return domain.model_copy(update={"corpus": corpus})


def path_of(name: str) -> Path:
    """The YAML file of the domain called `name`, the user's own first. Raises `NotFound`."""
    check_name(name)
    try:
        return find_config(f"domains/{name}.yaml")
    except NotFound:
        raise NotFound(
            f"no domain {name!r}; known: {', '.join(names())}. A file configs/domains/{name}.yaml adds one"
        ) from None
