"""`comptoir keys`: make API keys."""

from __future__ import annotations

import json
from typing import Annotated

import typer
import yaml

from serving.api import METRICS
from serving.config.base import validated
from serving.config.keys import INFERENCE, KeyConfig, hash_key
from serving.tenancy.keys import new_key

app = typer.Typer(no_args_is_help=True, help="Make API keys; only their hashes are stored.")


@app.callback()
def _keys() -> None:
    """Keep `new` a subcommand."""


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the tenant that uses it.")],
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            help=f"inference, metrics (read {METRICS}, nothing else) or operator; repeat. "
            "Default: inference.",
        ),
    ] = None,
    models: Annotated[
        list[str] | None, typer.Option("--model", help="A model it may use; repeat. Default: all.")
    ] = None,
    priority: Annotated[
        str, typer.Option(help="interactive, standard or batch: who goes first at a busy model.")
    ] = "standard",
    weight: Annotated[float, typer.Option(help="Share of a busy model.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Make a key. It is shown once; put the entry under `keys` of the gateway, or in its keys_file.

    Example: comptoir keys new acme --model qwen3; comptoir keys new prometheus --scope metrics
    """
    key = new_key()
    entry = validated(
        KeyConfig,
        {
            "name": name,
            "hash": hash_key(key),
            "scopes": tuple(dict.fromkeys(scopes or INFERENCE)),
            "models": tuple(models or ("*",)),
            "priority": priority,
            "weight": weight,
        },
        "key",
    ).model_dump(mode="json")
    if as_json:
        typer.echo(json.dumps({"key": key, "entry": entry}))
        return
    typer.echo(f"key (shown once): {key}\n")
    typer.echo("entry for `keys` in the gateway's args, or for its keys_file:\n")
    typer.echo(yaml.safe_dump([entry], sort_keys=False).rstrip())
