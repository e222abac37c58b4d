"""The command line of the reference server: an option for each key of its configuration."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from loadtests.reference.config import ReferenceConfig
from loadtests.reference.listening import listen
from serving.api import METRICS
from serving.config.base import validated

EXAMPLES = (
    "--port 8100 --ttft-ms 200 --itl-ms 20",
    "--mode stalls --stall-every 20 --stall-ms 300",
    "--mode queue --replicas 2 --slots 32 --knee 8 --prefill-ms-per-token 0.2",
    "--freeze-at 10 --freeze-for 2",
)
EPILOG = (
    "Modes: fixed (tokens at ttft-ms, then every itl-ms), jitter (the same, drawn around it), stalls (with a "
    "pause before every N-th token), queue (replicas with slots and a batch knee, see "
    "loadtests/simulation/queueing.py).",
    f"Addresses beside OpenAI's: {METRICS}, /truth (JSON lines; DELETE forgets them), /freezes, and POST "
    '/freeze {"in_s": 1, "for_s": 2}. The first line it prints is JSON with its url, port and pid.',
    *(f"Example: python -m loadtests.reference {options}" for options in EXAMPLES),
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def reference(**options: Any) -> None:
    """An OpenAI-compatible server that answers at times known in advance."""
    given = {name: value for name, value in options.items() if value not in (None, False)}
    listen(validated(ReferenceConfig, given, "options"))


def option(name: str, field: FieldInfo) -> inspect.Parameter:
    """The option of a key, as typer reads it off a function."""
    flag = "--" + name.removesuffix("_s").replace("_", "-")
    is_switch = field.annotation is bool
    kind: Any = bool if is_switch else str | None
    default = "" if is_switch or field.default in (None, "") else f" Default: {field.default}."
    made = typer.Option(
        flag,
        help=f"{field.description}{default}",
        metavar=None if is_switch else "VALUE",
        show_default=False,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=False if is_switch else None,
        annotation=Annotated[kind, made],
    )


# The keys stand in the configuration alone, which also checks them.
reference.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [option(name, field) for name, field in ReferenceConfig.model_fields.items()]
)
app.command(epilog="\n\n".join(EPILOG))(reference)
