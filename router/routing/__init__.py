"""From a query to a routing decision."""
