"""`make bench-referee`: known truth first, then the same load by three tools."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from loadtests.checks.referee.truth import CHECKS, Check
from serving.commands.output import note, run, show
from serving.errors import ConfigError

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Hold the load generator against known truth and against other tools. "
    "Exits with 1 if a bar is missed.",
)


def _show(checks: list[Check]) -> None:
    table = Table("", "found", "wanted", "", box=None)
    for one in checks:
        table.add_row(one.name, one.found, one.wanted, "holds" if one.holds else "MISSED")
    show(table)
    if not all(one.holds for one in checks):
        raise typer.Exit(1)


@app.command()
def truth(
    only: Annotated[str | None, typer.Option("--only", help=f"One of {', '.join(CHECKS)}.")] = None,
) -> None:
    """The reference server, which knows when it sent each token.

    Example: make bench-referee ARGS="truth"
    """
    if only is not None and only not in CHECKS:
        raise ConfigError(f"--only: '{only}' is unknown; known: {', '.join(CHECKS)}")
    checks: list[Check] = []
    for name, check in CHECKS.items():
        if only in (None, name):
            note(f"{name} ...")
            checks += check()
    _show(checks)


@app.command()
def tools(
    url: Annotated[str, typer.Option("--url", help="A running stack.")] = "http://127.0.0.1:8000",
    model: Annotated[str, typer.Option("--model", help="A tiny model that it serves.")] = "qwen3",
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns of each tool.")] = 3,
) -> None:
    """The running stack: vllm bench serve, GuideLLM and comptoir load in turn, the same requests.

    Start the stack first: make serve. Where tools and server have few cores together, the tool that
    takes least sees the faster server. On two cores, give each its own:

    taskset -c 0 .venv/bin/comptoir up deployments/local.yaml
    taskset -c 1 make bench-referee ARGS="tools"

    Example: make bench-referee ARGS="tools --rounds 5"
    """
    from loadtests.checks.referee.tools import compare_tools

    _show(compare_tools(url, model, rounds, note))


@app.callback(invoke_without_command=True)
def _both(context: typer.Context) -> None:
    """Without a command: truth."""
    if context.invoked_subcommand is None:
        truth(None)


if __name__ == "__main__":
    run(app)
