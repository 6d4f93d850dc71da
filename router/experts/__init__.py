"""Which experts there are, and how each wants its prompt."""
