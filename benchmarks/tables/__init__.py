"""Tables of the documentation, generated from results/*.json."""
