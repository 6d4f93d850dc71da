"""Fewer bits: which types, by which importance, how large, and made in a process of its own."""
