"""`comptoir route`: which model answers a request, and why."""
