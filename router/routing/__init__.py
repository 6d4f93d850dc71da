"""A query to a decision."""
