"""Text to embedding vectors."""
