"""Simulated replicas with prefix caches, and their workloads."""
