"""Quantization: types, importance matrices, sizes, llama.cpp's quantizer in a child process."""
