"""Labelled queries to a fitted router, and how well it routes."""
