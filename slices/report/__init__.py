"""`mom eval`: what slices are worth, measured and set against a reference."""
