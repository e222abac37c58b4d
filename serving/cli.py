"""The `comptoir` command."""

from __future__ import annotations

from typing import Annotated

import typer

from serving import __version__
from serving.commands import by_name, catalogue, check, keys, monitoring, status, tiny
from serving.commands.chat import cli as chat
from serving.commands.k8s import cli as k8s
from serving.commands.output import run
from serving.commands.rollout import cli as rollout
from serving.commands.route import cli as route
from serving.commands.stack import cli as stack
from serving.environment import as_exports

app = typer.Typer(
    name="comptoir",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Host open-weight models on Ray Serve and vLLM behind one OpenAI-compatible endpoint.",
    epilog="Begin with: comptoir up deployments/local.yaml\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong input or configuration.",
)
app.command()(stack.up)
app.command()(stack.down)
app.command()(status.status)
app.command()(chat.chat)
app.command()(check.check)
app.add_typer(keys.app, name="keys")
app.add_typer(catalogue.app, name="catalogue")
app.add_typer(route.app, name="route")
app.add_typer(tiny.app, name="tiny")
by_name.add(app, "load", "loadtests.commands.load:app")
by_name.add(app, "plan", "loadtests.plan.cli:plan")
app.add_typer(k8s.app, name="k8s")
app.add_typer(rollout.app, name="rollout")
app.add_typer(monitoring.app, name="monitoring")


@app.command()
def env() -> None:
    """Print the environment that a cluster needs before Ray starts.

    Example: eval "$(comptoir env)"; ray start --head
    """
    typer.echo(as_exports())


def _version(value: bool) -> None:
    if value:
        typer.echo(f"comptoir {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options that stand before the command."""


def main() -> None:
    """Entry point."""
    run(app)


if __name__ == "__main__":
    main()
