"""The best slice of at most so many bytes, found by measuring."""
