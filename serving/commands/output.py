"""Output of commands: results on standard output, notes and errors on standard error."""

from __future__ import annotations

import contextlib
import errno
import sys

import typer
from rich.console import Console, RenderableType

from serving.errors import ComptoirError, ConfigError, StackError

# What an operating system says of a place that cannot be written to.
_PLACES = frozenset(
    (
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.ENOENT,
        errno.ENOTDIR,
    )
)
# Columns of what is no terminal, a file or a pipe: no line of a table ends before its time there.
WIDE = 10_000
# No emoji: `fe80:a:b::1` and `00:ab:cd` are not to become pictures.
console = Console(highlight=False, emoji=False)
errors = Console(stderr=True, highlight=False, emoji=False)


def say(text: str) -> None:
    """Print a result."""
    console.print(text, soft_wrap=True)


def show(table: RenderableType) -> None:
    """Print a result in columns: as wide as the terminal, elsewhere in whole lines of plain text."""
    if console.is_terminal:
        console.print(table)
    else:
        typer.echo("\n".join(as_lines(table)))


def as_lines(table: RenderableType) -> list[str]:
    """Plain text, as wide as it needs to be."""
    plain = Console(width=WIDE, color_system=None, highlight=False, emoji=False)
    with plain.capture() as captured:
        plain.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def note(text: str) -> None:
    """Print a note on progress."""
    # Whoever read our output may be gone; rich turns a broken pipe into SystemExit.
    with contextlib.suppress(OSError, SystemExit):
        errors.print(text, style="dim", markup=False, soft_wrap=True)


def complain(error: ComptoirError) -> None:
    """Print an error, in one sentence."""
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
    except OSError as error:
        if (told := of_a_place(error)) is None:
            raise
        complain(told)
        sys.exit(exit_code(told))


def of_a_place(error: OSError) -> ComptoirError | None:
    """The message for an unusable folder, such as one on a read-only disk; None for other errors."""
    if error.filename is None or error.errno not in _PLACES:
        return None
    return StackError(
        f"{error.filename}: {error.strerror}: make it usable, or name another place (COMPTOIR_CACHE_DIR, "
        "TMPDIR, or the command's own option)"
    )


def exit_code(error: ComptoirError) -> int:
    """The exit code: 2 for invalid input or configuration, 1 for a failure."""
    return 2 if isinstance(error, ConfigError) else 1
