"""Speed and memory of cuts."""
