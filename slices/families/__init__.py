"""What each model family looks like: one total table of tensor names and one reading of its config a file."""
