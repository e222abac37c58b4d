"""The command: `python -m loadtests.reference`."""

from __future__ import annotations

from loadtests.reference.cli import app
from serving.commands.output import run

if __name__ == "__main__":
    run(app)
