"""From a leased job to the end of its attempt, and the worker that leases them."""
