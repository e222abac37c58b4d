"""Finds engines among the processes of a test."""

from __future__ import annotations

import contextlib

import psutil


def engines_under(root: psutil.Process) -> list[psutil.Process]:
    """The engine processes below another: one for each engine that runs, starts or ends."""
    found = []
    for child in root.children(recursive=True):
        # A process that ends while we look must not hide the engine beside it.
        with contextlib.suppress(psutil.Error):
            command = " ".join(child.cmdline())
            # vLLM names its process, which now and then does not take; it is always a spawned one.
            if "EngineCore" in command or "multiprocessing.spawn" in command:
                found.append(child)
    return found
