"""Generation: a worker thread per model, in this process or on Ray."""
