"""llama-cpp-python's low-level bindings, loaded once and silent; what llama.cpp complains of is kept."""

import ctypes
from collections import deque
from collections.abc import Callable
from functools import cache
from types import ModuleType

from slices.errors import MissingExtra

_INFO, _WARNING, _ERROR = 2, 3, 4


@cache
def load_library() -> ModuleType:
    """The bindings.

    Raises:
        MissingExtra: llama-cpp-python is not installed.
    """
    try:
        import llama_cpp.llama_cpp as cpp
    except ImportError:
        raise MissingExtra("llama-cpp-python", "quantize") from None
    library: ModuleType = cpp
    library.llama_log_set(_listener(library), ctypes.c_void_p(0))
    library.llama_backend_init()
    return library


def last_complaint() -> str:
    """What llama.cpp last logged as errors, else as warnings, on one line."""
    lines = [line for level, line in _complaints() if level == _ERROR and line]
    lines = lines or [line for _, line in _complaints() if line]
    return " ".join(lines[-4:]) or "it gives no reason"


def watch(callback: Callable[[str], None]) -> None:
    """Have `callback` called with each line of information that llama.cpp logs from now on."""
    _watchers().append(callback)


@cache
def _watchers() -> list[Callable[[str], None]]:
    return []


@cache
def _complaints() -> deque[tuple[int, str]]:
    return deque(maxlen=16)


@cache
def _listener(library: ModuleType) -> object:
    """llama.cpp's log callback. The cache keeps it alive, since llama.cpp goes on calling it."""

    def keep(level: int, text: bytes, _: object) -> None:
        line = " ".join(text.decode(errors="replace").split())
        if level in (_WARNING, _ERROR):
            _complaints().append((level, line))
        elif level == _INFO:
            for callback in _watchers():
                callback(line)

    return library.llama_log_callback(keep)
