"""`comptoir status`: a running endpoint's report on its models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from serving import api
from serving.commands.endpoint import get, not_an_endpoint
from serving.commands.output import note, say, show
from serving.commands.stack import processes
from serving.commands.stack.state import StackState
from serving.errors import ConfigError, StackError
from serving.replica_facts import ReplicaStats
from serving.settings import ProcessSettings


def status(
    port: Annotated[int | None, typer.Option(help="Port of a stack on this machine.")] = None,
    url: Annotated[
        str | None, typer.Option(help="URL of any endpoint, for instance https://llm.example.eu")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            envvar="COMPTOIR_API_KEY",
            help="API key, if the endpoint needs one; with the scope operator it shows load and replicas.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Show models, replicas and their load; exit code 1 when nothing answers.

    Example: comptoir status --port 8000
    """
    state = None
    if url is None:
        state = local_stack(port)
        url = state.base_url
    body = _fetch(url, key, is_inside=state is not None)
    if as_json:
        typer.echo(json.dumps(body, indent=2))
        return
    if state is not None:
        gib = processes.resident_bytes(state.stack_id, state.port) / 2**30
        say(f"stack on port {state.port}, process {state.pid}, {gib:.1f} GiB resident")
    show(_table(body))
    for source, why in _refused(body).items():
        note(f"the last change of {source} was refused, and what was before holds: {why}")
    if body.get("view") == "tenant":
        note("load and replicas are shown to keys with the scope operator")


def local_stack(port: int | None) -> StackState:
    """The stack on this machine; on this port, if one is named.

    Raises:
        StackError: there is no stack, or more than one and no port.
    """
    noted = StackState.all(ProcessSettings.load().cache_dir)
    # One whose foreground process is gone may still answer, but is hardly meant while another lives.
    running = [state for state in noted if state.is_alive or state.port == port] or noted
    states = [state for state in running if port in (None, state.port)]
    if not running:
        raise StackError("no stack is running on this machine; `comptoir up` starts one")
    if not states:
        ports = ", ".join(str(state.port) for state in running)
        raise StackError(f"no stack is running on port {port}; there is one on port {ports}")
    if len(states) > 1:
        ports = ", ".join(str(state.port) for state in states)
        raise StackError(f"several stacks are running; choose one with --port: {ports}")
    return states[0]


def _fetch(url: str, key: str | None, *, is_inside: bool) -> dict[str, Any]:
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"--url must begin with http:// or https://, not {url!r}", param="url")
    try:
        body = json.loads(get(url, api.STATUS, key, url, is_inside=is_inside))
    except ValueError:
        body = None
    if not isinstance(body, dict) or not isinstance(body.get("models"), list):
        raise not_an_endpoint(url)
    return body


def _refused(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The sources whose settings were refused, with the reasons; operators see them."""
    settings = body.get("settings")
    refused = settings.get("refused") if isinstance(settings, dict) else None
    return refused if isinstance(refused, dict) else {}


def _table(body: dict[str, Any]) -> Table:
    table = Table(box=None)
    for title in ("model", "state", "replica", "running", "waiting", "KV use", "tok/s"):
        table.add_column(title, justify="left" if title in ("model", "state") else "right")
    for model in body["models"]:
        prefill = (model.get("prefill") or {}).get("replicas", [])
        rows = [(model["id"], replica) for replica in model["replicas"] or [{}]]
        rows += [(f"{model['id']} (prefill)", replica) for replica in prefill]
        for name, replica in rows:
            stats = ReplicaStats.parse(replica)
            table.add_row(
                name,
                model["state"],
                str(replica.get("id", "-")),
                f"{stats.running:.0f}",
                f"{stats.waiting:.0f}",
                f"{100 * stats.kv_cache_use:.1f} %",
                f"{stats.tokens_per_s:.1f}",
            )
    return table
