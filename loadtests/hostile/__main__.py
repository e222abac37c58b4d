"""The command: `python -m loadtests.hostile`."""

from __future__ import annotations

from loadtests.hostile.cli import app

if __name__ == "__main__":
    app()
