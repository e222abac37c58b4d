"""Messages of `comptoir up`: its steps and their duration, and what to type when it is ready."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

import typer

from serving.commands.output import console, note, say
from serving.commands.stack.state import StackState
from serving.deployment_file import DeploymentFile
from serving.environment import cluster_environment

# A small real model, beside the file of tiny ones.
REAL_MODEL = "laptop.yaml"


def announce_steps(file: DeploymentFile) -> None:
    """Announce the steps, and their duration on two cores."""
    count = len(file.models)
    models = f"{count} model{'' if count == 1 else 's'}"
    took = (
        "about half a minute, the first time a little more"
        if _are_tiny(file)
        else "as long as its weights take to download (the first time) and to load"
    )
    note(f"{file.path}: step 1 of 2 starts Ray, about 5 s; step 2 starts {models}, {took}")


def announce_ready(
    file: DeploymentFile, state: StackState, seconds: float, *, reaches_hub: bool = False
) -> None:
    """Announce the URL, and what to type next.

    Args:
        reaches_hub: weights can be downloaded, so a model with meaningful text can be offered.
    """
    url = f"{state.base_url}/v1"
    chat = next(
        (m.id for m in file.models if m.replicas.min and "embed" not in m.entry), file.models[0].id
    )
    key = "YOUR_KEY" if file.gateway.keys else "none"
    auth = f" -H 'Authorization: Bearer {key}'" if file.gateway.keys else ""
    say(f"\n[bold]ready: {url}[/bold]  ({seconds:.0f} s; Ctrl-C stops)\n")
    body = f'{{"model": "{chat}", "messages": [{{"role": "user", "content": "Bonjour"}}]}}'
    typer.echo(f"  curl {url}/chat/completions{auth} -H 'Content-Type: application/json' \\")
    typer.echo(f"    -d '{body}'\n")
    typer.echo("  from openai import OpenAI")
    typer.echo(f'  client = OpenAI(base_url="{url}", api_key="{key}")')
    typer.echo(
        f'  print(client.chat.completions.create(model="{chat}", messages='
        '[{"role": "user", "content": "Bonjour"}], max_tokens=32).choices[0].message.content)'
    )
    typer.echo(f"\n  talk to it: {as_typed('comptoir')} chat {chat} --port {state.port}")
    if reaches_hub and _are_tiny(file) and (real := file.path.with_name(REAL_MODEL)).exists():
        typer.echo(
            f"  text with a meaning: make serve CONFIG={shlex.quote(str(real))}  (Qwen3 0.6B, 1.5 GB once)"
        )
    # A shell that starts afresh has nothing of `comptoir env`, and without the mode no token is sent.
    mode = cluster_environment()["RAY_AUTH_MODE"]
    ray = f"RAY_AUTH_MODE={mode} RAY_DASHBOARD_ADDRESS={state.dashboard}"
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token")
    if token.parts[-2:] != (".ray", "auth_token"):
        ray += f" RAY_AUTH_TOKEN_PATH={shlex.quote(str(token))}"
    path = shlex.quote(str(file.path))
    typer.echo(f"  change the models: edit {path}, then")
    typer.echo(f"  {ray} {as_typed('serve')} deploy {path}\n")
    console.file.flush()


def as_typed(name: str) -> str:
    """A command of this environment as it can be typed here: it need not be on the path."""
    beside = Path(sys.executable).with_name(name)
    if shutil.which(name) == str(beside):
        return name
    here = Path.cwd()
    return shlex.quote(str(beside.relative_to(here) if beside.is_relative_to(here) else beside))


def _are_tiny(file: DeploymentFile) -> bool:
    """Whether every model has random weights."""
    return all(model.entry.startswith("tiny-") for model in file.models)
