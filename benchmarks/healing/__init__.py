"""What slices keep, raw and healed."""
