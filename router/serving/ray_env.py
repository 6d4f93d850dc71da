"""Ray's settings in the environment, set before it is first imported; variables that are set already stay."""

import os
import secrets

_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "50",  # Ray's own 5 are not enough on a busy machine
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",  # of its 0.1, and 100 ms below: a third of what an idle
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "5000",  # service takes of a processor
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",  # from process to process, without the object store
    "RAY_worker_niceness": "0",  # of its 15: a model steps back by itself, `default.nice`
}
_PRIVATE = {  # any client of a port of Ray's can run code
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's word, on any system, for listening on loopback only
    "RAY_AUTH_MODE": "token",  # a replica listens everywhere all the same, and unpickles what it gets
}


def prepare(private: bool) -> None:
    """Set the variables for `mom serve`; `private` where Ray is started by it, for itself alone.

    Ray reads some of it only once, so nothing may have imported it yet. The token is new with every process.
    """
    variables = _RAY | (_PRIVATE | {"RAY_AUTH_TOKEN": secrets.token_hex(32)} if private else {})
    for name, value in variables.items():
        os.environ.setdefault(name, value)
