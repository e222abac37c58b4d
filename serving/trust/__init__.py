"""Trust: what a request may contain. Pure."""
