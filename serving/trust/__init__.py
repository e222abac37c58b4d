"""Trust: the contents that a request may have. Pure."""
