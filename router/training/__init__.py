"""Training and evaluation of a router on labelled queries."""
