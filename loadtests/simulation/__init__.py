"""Simulated engines, and the policies that are compared on them."""
