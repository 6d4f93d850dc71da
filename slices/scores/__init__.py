"""What the parts of a parent are worth on a domain's text."""
