"""The service's life in the foreground: until it is told to stop, reloading when it is told to."""

import signal
import threading
from collections.abc import Callable

from router.errors import RouterError
from router.serving.applications import Plan
from router.serving.lifecycle import Running, check, reload, run, shutdown
from router.settings import Settings
from slices.errors import SliceError

Reloaded = Callable[[Plan | Exception], None]


def serve_forever(read: Callable[[], Settings], ready: Callable[[Running], None], reloaded: Reloaded) -> None:
    """Serve until SIGINT or SIGTERM, and reload on SIGHUP. Call it in the main thread.

    Args:
        read: gives the settings, again at every reload.
        ready: called once, when all are up.
        reloaded: called with what is served now, or with why all stays as it was.

    Raises:
        RouterError, SliceError: what kept it from starting, in one sentence.
    """
    stop, again = threading.Event(), threading.Event()
    wanted = {signal.SIGINT: stop, signal.SIGTERM: stop}
    hangup = signal.signal(signal.SIGHUP, lambda *_: again.set())  # before a caller can see that it is ready
    try:
        running = run(check(read()))
    except BaseException:
        signal.signal(signal.SIGHUP, hangup)
        raise
    plan = running.plan
    before = {signal.SIGHUP: hangup}
    before |= {kind: signal.signal(kind, lambda got, _: wanted[signal.Signals(got)].set()) for kind in wanted}
    try:
        ready(running)
        while not stop.wait(0.5):  # a wait without end would not let Python see the signal
            if again.is_set():
                again.clear()
                plan = _again(plan, read, reloaded)
    finally:
        shutdown()
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _again(plan: Plan, read: Callable[[], Settings], reloaded: Reloaded) -> Plan:
    try:
        plan = reload(plan, read())
    except (RouterError, SliceError) as error:
        reloaded(error)
        return plan
    reloaded(plan)
    return plan
