"""Domain text: where it comes from, and which tokens it uses."""
