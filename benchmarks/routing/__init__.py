"""The router, beside semantic-router."""
