"""Running experts: a worker thread for each model, here or on Ray."""
