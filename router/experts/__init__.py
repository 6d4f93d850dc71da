"""The catalogue of experts and their chat templates."""
