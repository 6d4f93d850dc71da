"""Importance scores of layers and neurons on a domain's text."""
