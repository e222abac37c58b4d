"""Observability: what a gateway decided and how it went, in numbers. Never a word of a request."""
