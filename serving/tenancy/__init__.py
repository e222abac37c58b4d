"""Tenancy: callers and their rights. Pure."""
