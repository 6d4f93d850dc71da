"""Probes: short generation tasks that show failures which likelihood hides, scored by item."""
