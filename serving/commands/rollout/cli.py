"""`comptoir rollout`: a model's next revision beside the present one, with a weight, kept or dropped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from serving.commands.output import say, show
from serving.commands.rollout.api import Cluster, Endpoint, Running
from serving.commands.rollout.run import Run
from serving.commands.stack.state import StackState
from serving.commands.status import local_stack
from serving.config.yaml_file import read_mapping
from serving.errors import ConfigError
from serving.rollout.changes import changed_args
from serving.rollout.document import as_yaml, difference, read_site
from serving.rollout.figures import figures, require_site
from serving.rollout.steps import (
    Rollout,
    ended,
    find,
    present_revision,
    rollouts,
    started,
    weighted,
    what_changes,
)
from serving.settings import ProcessSettings

app = typer.Typer(
    no_args_is_help=True,
    help="Change a running model step by step: start, weight, then promote or abort.",
)

Model = Annotated[
    str, typer.Argument(help="Name by which clients call the model.", show_default=False)
]
Address = Annotated[
    str | None,
    typer.Option(
        envvar="RAY_DASHBOARD_ADDRESS",
        help="Address of Ray's dashboard, as for `serve deploy`; default: the stack on this machine.",
    ),
]
Port = Annotated[int | None, typer.Option(help="Port of a stack on this machine.")]
Url = Annotated[
    str | None, typer.Option(help="URL of the endpoint, for instance https://llm.example.eu")
]
Key = Annotated[
    str | None, typer.Option(envvar="COMPTOIR_API_KEY", help="API key, if the endpoint needs one.")
]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for each step.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show how the config would change; change nothing.")
]


@app.command()
def start(
    model: Model,
    to: Annotated[
        list[str] | None, typer.Option(help="key=value of the model's args; repeat. null: default.")
    ] = None,
    args_file: Annotated[
        Path | None, typer.Option("--args", help="YAML with all args of the new revision.")
    ] = None,
    weight: Annotated[float, typer.Option(help="Percent of the requests that it gets.")] = 5.0,
    address: Address = None,
    port: Port = None,
    url: Url = None,
    key: Key = None,
    timeout_s: Timeout = 1800.0,
    dry_run: DryRun = False,
) -> None:
    """Run a new revision beside the present one and give it a share of the requests.

    Example: comptoir rollout start qwen3-8b --to revision=main --to engine_args.max_num_seqs=64
    """
    cluster, endpoint = _connect(address, port, url, key)
    running = cluster.running()
    site = read_site(running.document)
    present = site.models[present_revision(site, model)].get("args") or {}
    if bool(to) == bool(args_file):
        raise ConfigError("give --to KEY=VALUE (repeatable) or --args FILE", param="to")
    wanted = read_mapping(args_file, "args") if args_file else changed_args(present, to or ())
    staged = started(running.document, model, wanted | {"id": present["id"]}, running.applications)
    canary = weighted(staged, model, weight)
    if dry_run:
        typer.echo(difference(running.document, canary))
        return
    rollout = find(staged, model)
    run = Run(cluster, _needed(endpoint), timeout_s)
    run.require_site()
    running = run.bring(running, staged, rollout)
    run.route(running, weighted(running.document, model, weight))
    say(
        f"{rollout.new} gets {weight:g} % of {rollout.model!r}; next: `comptoir rollout status`, "
        f"`weight {rollout.model} PERCENT`, `promote {rollout.model}` or `abort {rollout.model}`"
    )


@app.command("weight")
def set_weight(
    model: Model,
    percent: Annotated[
        float,
        typer.Argument(
            help="Percent of the requests that the new revision gets.", show_default=False
        ),
    ],
    address: Address = None,
    port: Port = None,
    url: Url = None,
    key: Key = None,
    timeout_s: Timeout = 120.0,
    dry_run: DryRun = False,
) -> None:
    """Change the new revision's share; nothing restarts, and sessions keep their revision where they can.

    Example: comptoir rollout weight qwen3-8b 25
    """
    cluster, endpoint = _connect(address, port, url, key)
    running = cluster.running()
    rollout = find(running.document, model)
    document = weighted(running.document, model, percent)
    if dry_run:
        typer.echo(difference(running.document, document))
        return
    run = Run(cluster, endpoint or Endpoint(""), timeout_s)
    if percent > rollout.percent:
        run.require_health(running, rollout)
    run.route(running, document)
    say(
        f"{rollout.new} gets {percent:g} % of {rollout.model!r}; before it was {rollout.percent:g} %"
    )


@app.command()
def promote(
    model: Model,
    address: Address = None,
    port: Port = None,
    url: Url = None,
    key: Key = None,
    timeout_s: Timeout = 600.0,
    dry_run: DryRun = False,
) -> None:
    """Keep the new revision: all requests go to it, and the old one is removed once it is idle.

    Example: comptoir rollout promote qwen3-8b
    """
    rollout = _end("new", model, _connect(address, port, url, key), timeout_s, dry_run=dry_run)
    if not dry_run:
        say(
            f"{rollout.model!r} now means {rollout.new}; `comptoir rollout export FILE` writes that "
            "into the deployment file; deploying the old file would undo it"
        )


@app.command()
def abort(
    model: Model,
    address: Address = None,
    port: Port = None,
    url: Url = None,
    key: Key = None,
    timeout_s: Timeout = 600.0,
    dry_run: DryRun = False,
) -> None:
    """Drop the new revision: all requests go to the old one, as before, and the new one is removed.

    Example: comptoir rollout abort qwen3-8b
    """
    rollout = _end("old", model, _connect(address, port, url, key), timeout_s, dry_run=dry_run)
    if not dry_run:
        say(f"{rollout.model!r} is {rollout.old} again, and {rollout.new} is gone")


@app.command()
def status(
    model: Annotated[str | None, typer.Argument(help="Default: every rollout.")] = None,
    address: Address = None,
    port: Port = None,
    url: Url = None,
    key: Key = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Show each rollout's revisions: weight, state, requests and the share of them that failed.

    Example: comptoir rollout status qwen3-8b
    """
    cluster, endpoint = _connect(address, port, url, key)
    running = cluster.running()
    found = [find(running.document, model)] if model else rollouts(running.document)
    seen = endpoint.status() if endpoint and found else None
    if seen is not None:
        require_site(seen)
    report = [_report(running, one, seen) for one in found]
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    elif not report:
        say("no rollout is in progress")
    else:
        show(_table(report))


@app.command()
def export(
    file: Annotated[
        Path | None,
        typer.Argument(help="A deployment file to bring up to date; it is not changed."),
    ] = None,
    address: Address = None,
    port: Port = None,
) -> None:
    """Print what the cluster runs as a deployment file: deploying that changes nothing.

    Example: comptoir rollout export site.yaml > site.new.yaml
    """
    cluster, _ = _connect(address, port, None, None)
    document: dict[str, Any] = read_mapping(file, "args") if file else {}
    typer.echo(as_yaml(document | cluster.running().document), nl=False)


def _connect(
    address: str | None, port: int | None, url: str | None, key: str | None
) -> tuple[Cluster, Endpoint | None]:
    """The dashboard, and the endpoint if it is known."""
    for option, value in (("address", address), ("url", url)):
        if value is not None and not value.startswith(("http://", "https://")):
            raise ConfigError(
                f"--{option} must begin with http:// or https://, not {value!r}", param=option
            )
    if address is None or port is not None:
        stack = local_stack(port)
        return Cluster(stack.dashboard), Endpoint(url or stack.base_url, key)
    if url is None:
        stacks = StackState.all(ProcessSettings.load().cache_dir)
        ours = (one for one in stacks if one.dashboard == address.rstrip("/"))
        url = next((one.base_url for one in ours), None)
    return Cluster(address), Endpoint(url, key) if url else None


def _end(
    keep: Literal["old", "new"],
    model: str,
    connected: tuple[Cluster, Endpoint | None],
    timeout_s: float,
    *,
    dry_run: bool,
) -> Rollout:
    """End a rollout with one of its revisions, or show what that would change; returns what it was."""
    cluster, endpoint = connected
    running = cluster.running()
    rollout = find(running.document, model)
    if dry_run:
        typer.echo(difference(running.document, ended(running.document, model, keep)))
        return rollout
    run = Run(cluster, _needed(endpoint), timeout_s)
    if keep == "new":
        run.require_health(running, rollout)
    run.require_site()
    run.end(running, rollout, keep)
    return rollout


def _needed(endpoint: Endpoint | None) -> Endpoint:
    if endpoint is None:
        raise ConfigError(
            "--url: is required here: the endpoint says whether a revision answers, and whether it "
            "still has open requests",
            param="url",
        )
    return endpoint


def _report(running: Running, rollout: Rollout, status: Mapping[str, Any] | None) -> dict[str, Any]:
    revisions = []
    for name, percent in ((rollout.old, 100 - rollout.percent), (rollout.new, rollout.percent)):
        one: dict[str, Any] = {"id": name, "state": running.state(name), "weight": percent}
        if status is not None:
            seen = figures(status, name)
            one |= asdict(seen) | {"error_share": seen.error_share}
        revisions.append(one)
    changes = what_changes(read_site(running.document), rollout)
    return {"model": rollout.model, "changes": changes, "revisions": revisions}


def _table(report: list[dict[str, Any]]) -> Table:
    table = Table(box=None)
    for title in ("model", "revision", "state", "weight", "requests", "failed", "first byte"):
        table.add_column(title, justify="left" if title in ("model", "revision") else "right")
    for rollout in report:
        for one in rollout["revisions"]:
            share, first = one.get("error_share"), one.get("first_byte_s")
            table.add_row(
                rollout["model"],
                one["id"],
                one["state"],
                f"{one['weight']:g} %",
                str(one.get("requests", "-")),
                "-" if share is None else f"{100 * share:.2f} %",
                "-" if first is None else f"{1000 * first:.0f} ms",
            )
    return table
