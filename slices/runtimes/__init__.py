"""Models that run: llama.cpp and torch behind the Protocol of `slices.runtime`."""
