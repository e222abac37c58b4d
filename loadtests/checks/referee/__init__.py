"""Compares the load generator with known truth and with other tools: `make bench-referee`."""
