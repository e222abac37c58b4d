"""Breaks a running stack under load and counts what its clients notice: `make chaos`."""
