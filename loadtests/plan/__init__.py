"""Capacity planning: from measured sweeps and a description of the users to replicas, GPUs, euros and CO2."""
