"""`comptoir tiny`: list, build, find and remove the tiny models that need no download."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from serving.catalogue import tiny
from serving.commands.output import note, say, show
from serving.config.paths import expanded
from serving.errors import ConfigError
from serving.settings import ProcessSettings

app = typer.Typer(
    no_args_is_help=True,
    help="Tiny random models of real architectures: the real engine on a CPU, without downloads.",
)

Names = Annotated[list[str] | None, typer.Argument(help="Models, as `comptoir tiny list` says.")]
CacheDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the models. Default: COMPTOIR_CACHE_DIR or ~/.cache/comptoir."),
]


@app.command("list")
def list_models(
    cache_dir: CacheDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """List the models, and say which of them are built.

    Example: comptoir tiny list
    """
    folder = _folder(cache_dir)
    built = [(model, tiny.built_path(model, folder).is_dir()) for model in tiny.families()]
    if as_json:
        rows = [
            {
                "id": model.id,
                "task": model.task,
                "architecture": model.architecture,
                "stands_for": model.stands_for,
                "built": is_built,
            }
            for model, is_built in built
        ]
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("model", no_wrap=True)
    for title in ("task", "stands for", "built"):
        table.add_column(title)
    for model, is_built in built:
        mark = "yes" if is_built else "-"
        table.add_row(model.id, model.task, model.stands_for, mark)
    show(table)


@app.command()
def build(
    names: Names = None,
    every: Annotated[bool, typer.Option("--all", help="Build all of them.")] = False,
    force: Annotated[bool, typer.Option(help="Rebuild models that are already built.")] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Build models and print their folders; models that are already built are not built again.

    Example: comptoir tiny build qwen3 qwen3-embedding
    """
    if bool(names) == every:
        raise ConfigError("name the models to build, or give --all", param="names")
    folder = _folder(cache_dir)
    for model in tiny.families() if every else _families(names):
        began = time.monotonic()
        path = tiny.build(model, folder, force=force, progress=note)
        note(f"{model.id}: ready after {time.monotonic() - began:.1f} s")
        say(str(path))


@app.command()
def path(
    name: Annotated[str, typer.Argument(help="A model, as `comptoir tiny list` says.")],
    cache_dir: CacheDir = None,
) -> None:
    """Print the folder of a model that is built.

    Example: comptoir tiny path qwen3
    """
    model = tiny.family(name)
    folder = tiny.built_path(model, _folder(cache_dir))
    if not folder.is_dir():
        raise ConfigError(
            f"{model.id} is not built: run `comptoir tiny build {model.name}`", param="name"
        )
    say(str(folder))


@app.command()
def clean(names: Names = None, cache_dir: CacheDir = None) -> None:
    """Remove built models, in every version: the named ones, or all.

    Example: comptoir tiny clean qwen3
    """
    models = _families(names) or tiny.families()
    removed = [path for model in models for path in tiny.remove(model, _folder(cache_dir))]
    for removed_path in removed:
        say(str(removed_path))
    note(f"removed {len(removed)} folder{'' if len(removed) == 1 else 's'}")


def _families(names: list[str] | None) -> tuple[tiny.TinyFamily, ...]:
    # All names are looked up before anything is done for the first.
    return tuple(tiny.family(name) for name in names or ())


def _folder(cache_dir: Path | None) -> Path:
    return expanded(cache_dir, "--cache-dir") if cache_dir else ProcessSettings.load().cache_dir
