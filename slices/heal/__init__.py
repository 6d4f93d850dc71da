"""Healing: a cut slice taught by its parent, on its domain's text."""
