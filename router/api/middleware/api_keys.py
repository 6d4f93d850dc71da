"""API keys: who may ask. Only their hashes are kept, in a file of one JSON object, `{name: sha256}`.

A key is 32 random bytes, so one round of SHA-256 is enough: there is nothing to guess.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from pathlib import Path

from router.errors import BadSettings
from slices import home
from slices.files import atomic

PREFIX = "mom-"
_BYTES = 32


class Keys:
    """The keys of a file, by whose they are."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = dict(hashes)

    def owner(self, key: str) -> str | None:
        """Whose `key` is, None if nobody's. Takes as long whoever's it is."""
        presented, found = _hash(key), None
        for name, kept in self._hashes.items():
            if hmac.compare_digest(kept.encode(), presented.encode()):
                found = name
        return found

    @property
    def names(self) -> list[str]:
        """Whose keys there are."""
        return sorted(self._hashes)


def default_file() -> Path:
    """Where keys are kept unless told otherwise."""
    return home.home() / "keys.json"


def read(path: Path) -> Keys:
    """The keys of a file.

    Raises:
        BadSettings: it is not there, or not such a file.
    """
    return Keys(_read(path))


def add(path: Path, name: str) -> str:
    """Make a key for `name` and keep its hash; what is returned is shown once and never again.

    Raises:
        BadSettings: there is a key of that name, or the file is damaged.
        BadConfig: the name is not usable.
    """
    hashes = _read(path) if path.is_file() else {}
    if home.check_name(name) in hashes:
        raise BadSettings(f"{path} has a key for {name} already; drop it first with `mom key drop {name}`")
    key = PREFIX + secrets.token_urlsafe(_BYTES)
    _write(path, {**hashes, name: _hash(key)})
    return key


def drop(path: Path, name: str) -> None:
    """Forget the key of `name`.

    Raises:
        BadSettings: there is none, or the file is damaged.
    """
    hashes = _read(path)
    if name not in hashes:
        raise BadSettings(f"{path} has no key for {name!r}; there are: {', '.join(sorted(hashes)) or 'none'}")
    _write(path, {kept: value for kept, value in hashes.items() if kept != name})


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise BadSettings(f"cannot read the keys in {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise BadSettings(f"{path} holds no keys: it is not JSON; make one with `mom key new NAME`") from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise BadSettings(f"{path} holds no keys: expected an object of names and hashes")
    return found


def _write(path: Path, hashes: Mapping[str, str]) -> None:
    with atomic.staged(path, force=True) as partial:
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(hashes, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
