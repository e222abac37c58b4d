"""How commands speak: results on standard output, notes and errors on standard error."""

from __future__ import annotations

import contextlib
import sys

import typer
from rich.console import Console

from serving.errors import ComptoirError, ConfigError

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """A result."""
    console.print(text, soft_wrap=True)


def note(text: str) -> None:
    """What is going on."""
    # Whoever read our output may be gone; rich turns a broken pipe into SystemExit.
    with contextlib.suppress(OSError, SystemExit):
        errors.print(text, style="dim", markup=False, soft_wrap=True)


def complain(error: ComptoirError) -> None:
    """An error, in one sentence."""
    errors.print("error:", style="bold red", end=" ")
    errors.print(error.message, markup=False, soft_wrap=True)
    sys.stderr.flush()


def run(app: typer.Typer) -> None:
    """A command's entry point: errors of ours become one sentence and an exit code."""
    try:
        app()
    except ComptoirError as error:
        complain(error)
        sys.exit(exit_code(error))


def exit_code(error: ComptoirError) -> int:
    """2 for wrong input or configuration, 1 for what failed."""
    return 2 if isinstance(error, ConfigError) else 1
