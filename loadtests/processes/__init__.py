"""Processes on this machine: their start and end, their titles, ports for them."""
