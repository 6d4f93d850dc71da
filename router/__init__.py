"""Everything about answering with many experts: embed, decide, run, serve."""
