"""The command without `comptoir`: `python -m loadtests.plan FILE.yaml --sweep sweep.json`."""

from __future__ import annotations

import sys

import typer

from loadtests.plan.cli import plan
from serving.commands.output import complain
from serving.errors import ComptoirError, ConfigError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(plan)


def main() -> None:
    """Errors of ours become one sentence and an exit code, as in `comptoir`."""
    try:
        app()
    except ComptoirError as error:
        complain(error)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


if __name__ == "__main__":
    main()
