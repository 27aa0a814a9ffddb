"""From an HTTP request to a committed delivery and its answer."""
