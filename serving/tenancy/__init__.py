"""Tenancy: who calls and what they may use. Pure."""
