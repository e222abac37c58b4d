"""Routing: which model answers a request. Pure."""
