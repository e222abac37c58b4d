"""The command without `comptoir`: `python -m loadtests.plan FILE.yaml --sweep sweep.json`."""

from __future__ import annotations

import typer

from loadtests.plan.cli import plan
from serving.commands.output import run

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.command()(plan)


if __name__ == "__main__":
    run(app)
