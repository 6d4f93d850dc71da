"""Evaluation reports (`mom eval`): models on held-out text, tasks and probes, compared with a baseline."""
