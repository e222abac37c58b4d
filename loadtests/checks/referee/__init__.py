"""Holds the load generator against known truth and against other tools: `make bench-referee`."""
