"""GGUF files, which llama.cpp reads: what goes in, and what may come out."""
