"""How commands speak: results on standard output, notes and errors on standard error."""

from __future__ import annotations

import sys

from rich.console import Console

from serving.errors import ComptoirError

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """A result."""
    console.print(text, soft_wrap=True)


def note(text: str) -> None:
    """What is going on."""
    errors.print(f"[dim]{text}[/dim]", soft_wrap=True)


def complain(error: ComptoirError) -> None:
    """An error, in one sentence."""
    errors.print("[bold red]error:[/bold red]", error.message, soft_wrap=True, markup=True)
    sys.stderr.flush()
