"""The service under load, failure and fuzzing."""
