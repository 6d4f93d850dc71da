"""The service on Ray Serve: check, deploy, reload, stop."""
