"""`comptoir route explain`: which model would answer a request, and why. Starts and contacts nothing.

It shows numbers, names of the configuration and fixed words, never text of the request.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from serving import api
from serving.catalogue import tiny
from serving.catalogue.catalogue import load_catalogue
from serving.commands.output import complain
from serving.commands.planning import plan_models
from serving.commands.route.view import print_route
from serving.config.routing import ModelFacts, RoutingConfig
from serving.deployment_file import DeploymentFile, load_deployment_file
from serving.discovery.directory import Directory, Model
from serving.engine_plan.plan import EnginePlan
from serving.errors import ComptoirError, ConfigError, ModelNotFoundError
from serving.replica_facts import ModelCard
from serving.routing.aliases import sticky_key
from serving.routing.capabilities import capabilities_of
from serving.routing.features import features_of
from serving.routing.lifetimes import deprecation_headers
from serving.routing.route import Candidate, Route
from serving.routing.router import ModelRouter
from serving.settings import GatewayConfig, KeyConfig, ModelConfig, ProcessSettings
from serving.tenancy.keys import ANONYMOUS, Caller
from serving.trust.endpoint import Endpoint
from serving.trust.fields import endpoints
from serving.trust.leftovers import Leftovers

app = typer.Typer(no_args_is_help=True, help="Which model answers a request, and why.")


@app.callback()
def _route() -> None:
    """Keep `explain` a subcommand."""


@app.command()
def explain(
    request: Annotated[
        Path,
        typer.Argument(
            metavar="REQUEST.json", help="A body as a client sends it; - reads standard input."
        ),
    ],
    config: Annotated[
        Path, typer.Option("--config", metavar="FILE", help="The site's Serve config file.")
    ],
    path: Annotated[
        str, typer.Option("--path", help="The endpoint that the body is for.")
    ] = api.CHAT,
    key_name: Annotated[
        str | None,
        typer.Option(
            "--key-name",
            help="Name of the API key that asks. Default: one that may use all models.",
        ),
    ] = None,
    session: Annotated[
        str | None, typer.Option("--session", help="The session id that the client sends.")
    ] = None,
    on: Annotated[
        datetime | None,
        typer.Option(
            "--on", formats=["%Y-%m-%d"], help="Day of the request (UTC). Default: today."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Show which model would answer a request, who would take over, and why.

    It reads the config file and the request, and starts nothing.
    The catalogue and the file say what a model can do and how long its context is.
    No text of the request is ever shown.

    Example: comptoir route explain request.json --config deployments/local.yaml --session 42
    """
    with _errors_exit():
        today = on.date() if on else datetime.now(UTC).date()
        shown = _explain(config, request, path, key_name, session, today)
        if as_json:
            typer.echo(json.dumps(shown, indent=2))
        else:
            print_route(shown)


def _explain(
    config: Path, request: Path, path: str, key_name: str | None, session: str | None, today: date
) -> dict[str, Any]:
    settings = ProcessSettings.load()
    file = load_deployment_file(config, settings)
    gateway = file.gateway
    caller = _caller(gateway.keys, key_name)
    endpoint = _endpoint(gateway, path)
    raw = _read(request, gateway.limits.max_body_bytes)
    directory = _directory(file, settings)
    router = ModelRouter(gateway.routing)
    user = raw.get("user")
    key = sticky_key(caller.name, session, user if isinstance(user, str) else None)
    with _as_the_gateway(directory, router, caller, today):
        body = endpoint.check(raw, Leftovers(is_strict=gateway.limits.strict))
        features = features_of(path, body)
        route = router.route(
            body["model"], features, directory, caller.may_use, key, today, endpoint.tasks
        )
    return {
        "path": path,
        "key_may_use": sorted(caller.models),
        "features": asdict(features),
        "alias": route.alias,
        "arm": route.arm,
        "share": _share(gateway.routing, route),
        "rule": route.rule,
        "rules": [asdict(verdict) for verdict in route.verdicts],
        "candidates": [_facts(one, directory, gateway.routing) for one in route.candidates],
        "not_chosen": {skipped.name: skipped.why for skipped in route.skipped},
        "headers": deprecation_headers(route),
        "replica_policy": gateway.replica_routing.policy,
    }


# ---- what goes in --------------------------------------------------------------------------------------


def _caller(keys: tuple[KeyConfig, ...], name: str | None) -> Caller:
    if name is None:
        return ANONYMOUS
    for key in keys:
        if key.name == name:
            return Caller(key.name, frozenset(key.models), key.priority, key.weight)
    known = ", ".join(key.name for key in keys) or "none: omit --key-name"
    raise ConfigError(f"no API key has this name; available: {known}", param="--key-name")


def _endpoint(gateway: GatewayConfig, path: str) -> Endpoint:
    known = endpoints(gateway.limits)
    if path not in known:
        raise ConfigError(
            f"no model answers at this path; --path is one of: {', '.join(known)}", param="--path"
        )
    return known[path]


def _read(path: Path, max_bytes: int) -> dict[str, Any]:
    """The request's body, read as the gateway reads it."""
    where = "standard input" if str(path) == "-" else str(path)
    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{where}: cannot be read ({error.strerror}): name a file with the request's body, or - "
            "for standard input",
            param="request",
        ) from None
    if len(content) > max_bytes:
        raise ConfigError(f"{where}: has more than {max_bytes} bytes (limits.max_body_bytes)")
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ConfigError(
            f"{where}: is not JSON (line {error.lineno}, column {error.colno}): it must hold the body "
            "that a client would send",
            param="request",
        ) from None
    if not isinstance(body, dict):
        raise ConfigError(f"{where}: must hold a JSON object, the body that a client would send")
    return body


def _directory(file: DeploymentFile, settings: ProcessSettings) -> Directory:
    """The file's models as the gateway would know them once all of them run."""
    return Directory(
        Model(model.id, _card(model, plan))
        for model, plan in plan_models(file, settings)
        if plan.role != "prefill"
    )


def _card(model: ModelConfig, plan: EnginePlan) -> ModelCard:
    context_tokens = plan.engine_args.get("max_model_len")
    if not isinstance(context_tokens, int):
        is_tiny = model.entry.startswith(tiny.ID_PREFIX)
        catalogue = None if is_tiny else load_catalogue(model.catalogue_files)
        context_tokens = catalogue.get(model.entry).context_tokens if catalogue else None
    return replace(plan.card, max_model_len=context_tokens)


@contextmanager
def _as_the_gateway(
    directory: Directory, router: ModelRouter, caller: Caller, today: date
) -> Iterator[None]:
    """Report how the gateway would refuse, with the known names if the name was the reason."""
    try:
        yield
    except ComptoirError as error:
        names = ""
        if isinstance(error, ModelNotFoundError):
            known = {*router.names(directory, caller.may_use, today), *directory.models}
            names = f" (names in this file: {', '.join(sorted(known))})"
        raise ConfigError(
            f"the gateway would answer {error.status} ({error.code}): {error.message}{names}",
            param=error.param,
        ) from None


# ---- what comes out ------------------------------------------------------------------------------------


def _share(routing: RoutingConfig, route: Route) -> float | None:
    """The share of the alias's keys that the chosen arm has, with the arms that can answer."""
    if route.alias is None:
        return None
    passed_over = {one.name for one in route.skipped}
    weights = {arm.model: arm.weight for arm in routing.aliases[route.alias].arms}
    total = sum(weight for model, weight in weights.items() if model not in passed_over)
    return weights[str(route.arm)] / total if total else 1.0


def _facts(one: Candidate, directory: Directory, routing: RoutingConfig) -> dict[str, Any]:
    card = directory.models[one.model_id].card
    facts = routing.models.get(one.served_name, ModelFacts())
    capabilities = capabilities_of(facts, card)
    return {
        "model": one.served_name,
        "reason": one.reason,
        "takes_over": {name: sorted(on) for name, on in one.takes_over.items()},
        "context_tokens": card.max_model_len,
        "cost": facts.cost,
        "capabilities": None if capabilities is None else sorted(capabilities),
    }


@contextmanager
def _errors_exit() -> Iterator[None]:
    try:
        yield
    except ComptoirError as error:
        complain(error)
        raise typer.Exit(2) from None
