"""Readings that were made before: the same question asked again costs a look-up."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

from router.routing.cascade import Reader, Reading

REMEMBERED = 16_384  # texts, some hundred bytes each


class Remembering:
    """A reader that keeps what it made of the last `size` different texts. Safe to share by threads.

    Texts are told apart by a hash of 128 bits, so that no text stays in memory.
    """

    def __init__(self, inner: Reader, size: int = REMEMBERED) -> None:
        self._inner, self._size = inner, size
        self._known: OrderedDict[bytes, Reading] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """One reading a text; unknown ones are read in one batch."""
        keys = [_key(text) for text in texts]
        found = self._recall(keys)
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if new:
            found |= dict(zip(new, self._inner.read(list(new.values())), strict=True))
            self._keep({key: found[key] for key in new})
        return [found[key] for key in keys]

    def _recall(self, keys: Sequence[bytes]) -> dict[bytes, Reading]:
        with self._lock:
            found = {key: self._known[key] for key in keys if key in self._known}
            for key in found:
                self._known.move_to_end(key)
        return found

    def _keep(self, new: dict[bytes, Reading]) -> None:
        with self._lock:
            self._known |= new
            while len(self._known) > self._size:
                self._known.popitem(last=False)


def _key(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
