"""Finds and ends the processes of one local stack, and only those.

Every process of a stack inherits COMPTOIR_STACK with a random value; nothing else on the machine has it.
"""

from __future__ import annotations

import contextlib
import time

import psutil

STACK_VARIABLE = "COMPTOIR_STACK"


def of_stack(stack_id: str) -> list[psutil.Process]:
    """Living processes of the stack, this one left out."""
    found = []
    for process in psutil.process_iter():
        if process.pid == psutil.Process().pid:
            continue
        with contextlib.suppress(psutil.Error):
            if process.environ().get(STACK_VARIABLE) == stack_id:
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
    return found


def end_all(stack_id: str, grace_s: float = 5.0) -> int:
    """Terminate, then kill, until none is left; returns how many there were."""
    count = 0
    deadline = time.monotonic() + grace_s
    while processes := of_stack(stack_id):
        count = max(count, len(processes))
        for process in processes:
            with contextlib.suppress(psutil.Error):
                if time.monotonic() < deadline:
                    process.terminate()
                else:
                    process.kill()
        psutil.wait_procs(processes, timeout=0.5)
        if time.monotonic() > deadline + 10:
            break
    return count


def resident_bytes(stack_id: str) -> int:
    """Memory of the whole stack: unique set size, so that shared pages count once per process owning them."""
    total = 0
    for process in of_stack(stack_id):
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total
