"""What a slice is worth: held-out text, divergence from a reference, ladders of types."""
