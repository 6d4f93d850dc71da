"""Quantization types, against llama.cpp's own tools."""
