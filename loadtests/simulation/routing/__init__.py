"""Simulated replicas with prefix caches, and what is asked of them."""
