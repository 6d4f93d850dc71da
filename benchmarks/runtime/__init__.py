"""Speed and tasks of a model that runs."""
