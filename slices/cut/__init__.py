"""From a request to a slice on disk: plan, extract, write the manifest."""
