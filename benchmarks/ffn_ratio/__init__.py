"""The published FFN-ratio predictor, tried on our own models."""
