"""API keys, of which only hashes are stored, in a file of one JSON object, `{name: sha256}`.

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


class ApiKeys:
    """The keys of a file, by the names of their owners."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = dict(hashes)

    def owner(self, key: str) -> str | None:
        """The owner of `key`, None if it is unknown. Takes constant time."""
        presented, owner = _hash(key), None
        for name, stored in self._hashes.items():
            if hmac.compare_digest(stored.encode(), presented.encode()):
                owner = name
        return owner

    @property
    def names(self) -> list[str]:
        """The owners' names."""
        return sorted(self._hashes)


def default_file() -> Path:
    """The keys file in mom's home."""
    return home.home() / "keys.json"


def read(path: Path) -> ApiKeys:
    """The keys of a file.

    Raises:
        BadSettings: it is not there, or not such a file.
    """
    return ApiKeys(_read(path))


def add(path: Path, name: str) -> str:
    """Create a key for `name` and store its hash; the key is returned this once.

    Raises:
        BadSettings: there is a key of that name, or the file is damaged.
        BadConfig: the name is not valid.
    """
    hashes = _read(path) if path.is_file() else {}
    if home.check_name(name) in hashes:
        raise BadSettings(f"{path} has a key for {name} already; drop it first with `mom key drop {name}`")
    key = PREFIX + secrets.token_urlsafe(_BYTES)
    _write(path, {**hashes, name: _hash(key)})
    return key


def drop(path: Path, name: str) -> None:
    """Delete the key of `name`.

    Raises:
        BadSettings: there is none, or the file is damaged.
    """
    hashes = _read(path)
    if name not in hashes:
        raise BadSettings(f"{path} has no key for {name!r}; there are: {', '.join(sorted(hashes)) or 'none'}")
    _write(path, {stored: value for stored, value in hashes.items() if stored != name})


def _read(path: Path) -> dict[str, str]:
    try:
        hashes = json.loads(path.read_bytes())
    except OSError as error:
        raise BadSettings(f"cannot read the keys in {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise BadSettings(f"{path} holds no keys: it is not JSON; make one with `mom key new NAME`") from None
    if not isinstance(hashes, dict) or not all(isinstance(value, str) for value in hashes.values()):
        raise BadSettings(f"{path} holds no keys: expected an object of names and hashes")
    return hashes


def _write(path: Path, hashes: Mapping[str, str]) -> None:
    with atomic.staged(path, force=True) as partial:
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(hashes, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
