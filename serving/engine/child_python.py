"""The Python that engine processes are started with: one that seldom looks for garbage.

vLLM's imports make a million objects and hardly any garbage, and looking for some after every 700 of them
takes a quarter of the time that they take. A process that is spawned imports before it runs anything of
ours, so its interpreter has to be told: `multiprocessing.set_executable` is for that.
https://docs.python.org/3/library/multiprocessing.html#multiprocessing.set_executable
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Beside the interpreter where the distribution is installed (pyproject.toml).
COMMAND = "comptoir-engine-python"
# New objects between two looks at them. An engine's own loop makes few that refer to each other.
SELDOM = 50_000


def main() -> None:
    """Run a program as `python [OPTION ...] -c PROGRAM [ARGUMENT ...]` does; options are ignored."""
    gc.set_threshold(SELDOM, *gc.get_threshold()[1:])
    try:
        at = sys.argv.index("-c")
        program = sys.argv[at + 1]
    except (ValueError, IndexError):
        sys.exit(f"{COMMAND} is for Python's multiprocessing: it needs -c PROGRAM")
    sys.argv = ["-c", *sys.argv[at + 2 :]]
    exec(program, {"__name__": "__main__"})  # noqa: S102 - the parent's own words


def use() -> None:
    """Start this process's children with it, where it is installed."""
    command = Path(sys.executable).with_name(COMMAND)
    if os.access(command, os.X_OK):
        multiprocessing.set_executable(str(command))


@contextmanager
def no_collections() -> Iterator[None]:
    """While something is imported: look for no garbage, and afterwards not at what is there now."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
