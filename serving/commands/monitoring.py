"""`comptoir monitoring`: Prometheus rules and Grafana dashboards, and whether an endpoint feeds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from serving import api
from serving.commands.endpoint import get
from serving.commands.output import errors, note, say
from serving.config.base import validated
from serving.config.yaml_file import read_mapping
from serving.errors import ConfigError, StackError
from serving.monitoring.files import dashboard_files, kubernetes_files, rule_files
from serving.monitoring.scrape import compare
from serving.monitoring.settings import MonitoringConfig

app = typer.Typer(
    no_args_is_help=True, help="Prometheus rules, Grafana dashboards, and what they need."
)

Settings = Annotated[
    Path | None,
    typer.Option(help="YAML with the site's own objectives and thresholds (docs/monitoring.md)."),
]
Out = Annotated[Path, typer.Option(help="The folder to write to.")]


@app.command()
def rules(
    out: Out,
    settings: Settings = None,
    kubernetes: Annotated[
        bool,
        typer.Option("--kubernetes", help="Manifests for the Prometheus operator instead."),
    ] = False,
) -> None:
    """Write recording rules and alerts, and an example of Prometheus' configuration.

    Example: comptoir monitoring rules --out /etc/prometheus
    """
    config = _config(settings)
    _write(out, kubernetes_files(config) if kubernetes else rule_files(config))


@app.command()
def dashboards(out: Out, settings: Settings = None) -> None:
    """Write Grafana dashboards: fleet, model, tenant, capacity, energy.

    Example: comptoir monitoring dashboards --out /var/lib/grafana/dashboards
    """
    _write(out, dashboard_files(_config(settings)))


@app.command()
def check(
    url: Annotated[str, typer.Argument(help="A gateway, for instance http://127.0.0.1:8000")],
    settings: Settings = None,
    key: Annotated[
        str | None,
        typer.Option(envvar="COMPTOIR_API_KEY", help="API key, if the endpoint needs one."),
    ] = None,
) -> None:
    """Scrape a gateway and list the metrics that rules and dashboards need and it lacks; exit code 1 if any.

    Example: comptoir monitoring check http://127.0.0.1:8000
    """
    found = compare(_scrape(url, key), _config(settings))
    for metric, users in found.missing.items():
        errors.print("[bold red]missing[/]", end=" ")
        errors.print(f"{metric}: {', '.join(users)}", markup=False, soft_wrap=True)
    note(
        f"{len(found.external)} more come from other exporters (Prometheus, Ray, DCGM) and are not "
        f"looked for here: {', '.join(found.external)}"
    )
    if found.missing:
        raise typer.Exit(1)
    say(f"[bold green]ok[/bold green] all {len(found.present)} metrics are there")


def _config(path: Path | None) -> MonitoringConfig:
    if path is None:
        return MonitoringConfig()
    return validated(MonitoringConfig, read_mapping(path, "settings"), str(path))


def _write(folder: Path, files: Mapping[str, str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror}", param="out") from None
    note(f"{len(files)} files in {folder}: {', '.join(files)}")


def _scrape(url: str, key: str | None) -> str:
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"URL must begin with http:// or https://, not {url!r}", param="url")
    base = url.rstrip("/").removesuffix("/v1").removesuffix(api.METRICS)
    text = get(base, api.METRICS, key, base + api.METRICS)
    if key and "comptoir_build_info" not in text:
        raise StackError(
            "this API key sees its own rows only, and Prometheus needs all: make one with "
            "`comptoir keys new prometheus --scope metrics`",
            param="key",
        )
    return text
