"""Commands of packages above this one: found by name, so that no import points upward."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Annotated, Any

import typer

from serving.errors import StackError

ANY_WORDS: dict[str, Any] = {"ignore_unknown_options": True, "help_option_names": []}


def add(app: typer.Typer, command: str, place: str) -> None:
    """Add the command at `place`, "package.module:name"; without its package, one that says so."""
    module, _, name = place.partition(":")
    package = module.partition(".")[0]
    if find_spec(package) is None:
        app.command(command, context_settings=ANY_WORDS)(_missing(command, package))
        return
    found: Any = getattr(importlib.import_module(module), name)
    if isinstance(found, typer.Typer):
        app.add_typer(found, name=command)
    else:
        app.command(command)(found)


def _missing(command: str, package: str) -> Callable[[list[str] | None], None]:
    def missing(words: Annotated[list[str] | None, typer.Argument(hidden=True)] = None) -> None:
        raise StackError(
            f"`comptoir {command}` is part of the package `{package}`, which is not installed here; "
            "install all of comptoir"
        )

    missing.__doc__ = f"Not installed here: part of the package `{package}`."
    return missing
