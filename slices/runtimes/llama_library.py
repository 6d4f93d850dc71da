"""llama-cpp-python's low-level bindings, loaded once; llama.cpp's log goes to listeners, not to stderr."""

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
    library.llama_log_set(_log_callback(library), ctypes.c_void_p(0))
    library.llama_backend_init()
    return library


def last_error() -> str:
    """llama.cpp's last logged errors, else its last warnings, on one line."""
    lines = [line for level, line in _messages() if level == _ERROR and line]
    lines = lines or [line for _, line in _messages() if line]
    return " ".join(lines[-4:]) or "it gives no reason"


def add_log_listener(callback: Callable[[str], None]) -> None:
    """Call `callback` with each line that llama.cpp logs at level INFO from now on."""
    _listeners().append(callback)


@cache
def _listeners() -> list[Callable[[str], None]]:
    return []


@cache
def _messages() -> deque[tuple[int, str]]:
    return deque(maxlen=16)


@cache
def _log_callback(library: ModuleType) -> object:
    """llama.cpp's log callback. The cache keeps it alive, since llama.cpp goes on calling it."""

    def keep(level: int, text: bytes, _: object) -> None:
        line = " ".join(text.decode(errors="replace").split())
        if level in (_WARNING, _ERROR):
            _messages().append((level, line))
        elif level == _INFO:
            for callback in _listeners():
                callback(line)

    return library.llama_log_callback(keep)
