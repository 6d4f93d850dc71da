"""The service in the foreground: serve until SIGINT or SIGTERM, reload on SIGHUP."""

import signal
import threading
from collections.abc import Callable

from router.errors import RouterError
from router.serving.applications import DeployPlan
from router.serving.lifecycle import RunningService, check, reload, run, shutdown
from router.settings import Settings
from slices.errors import SliceError

OnReload = Callable[[DeployPlan | Exception], None]


def serve_forever(
    read: Callable[[], Settings], on_ready: Callable[[RunningService], None], on_reload: OnReload
) -> None:
    """Serve until SIGINT or SIGTERM, and reload on SIGHUP. Call it in the main thread.

    Args:
        read: gives the settings, again at every reload.
        on_ready: called once, when all applications run.
        on_reload: called with the new plan, or with the error for which the old one stays.

    Raises:
        RouterError, SliceError: why it did not start, in one sentence.
    """
    stop, again = threading.Event(), threading.Event()
    stop_signals = {signal.SIGINT: stop, signal.SIGTERM: stop}
    hangup = signal.signal(signal.SIGHUP, lambda *_: again.set())  # before a caller can see that it is ready
    try:
        running = run(check(read()))
    except BaseException:
        signal.signal(signal.SIGHUP, hangup)
        raise
    plan = running.plan
    handlers = {signal.SIGHUP: hangup}
    handlers |= {
        kind: signal.signal(kind, lambda number, _: stop_signals[signal.Signals(number)].set())
        for kind in stop_signals
    }
    try:
        on_ready(running)
        while not stop.wait(0.5):  # a wait without end would not let Python see the signal
            if again.is_set():
                again.clear()
                plan = _reload(plan, read, on_reload)
    finally:
        shutdown()
        for kind, handler in handlers.items():
            signal.signal(kind, handler)


def _reload(plan: DeployPlan, read: Callable[[], Settings], on_reload: OnReload) -> DeployPlan:
    try:
        plan = reload(plan, read())
    except (RouterError, SliceError) as error:
        on_reload(error)
        return plan
    on_reload(plan)
    return plan
