"""Comptoir: a high-throughput inference serving stack for open-weight models on Ray Serve and vLLM."""

__version__ = "0.1.0"
