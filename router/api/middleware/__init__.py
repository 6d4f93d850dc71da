"""What every request passes: authentication, body limit, access log, tracing."""
