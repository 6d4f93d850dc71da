"""Models to measure on: synthetic, toy, trained here, from PyPI."""
