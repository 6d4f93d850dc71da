"""Probes: small tasks that show what likelihoods hide, item by item."""
