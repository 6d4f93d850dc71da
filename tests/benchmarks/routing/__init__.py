"""Tests of `benchmarks/routing/`."""
