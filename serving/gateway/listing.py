"""The gateway's report on its models: the list, and whether they are ready. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from serving.config.revisions import public_name
from serving.config.routing import RoutingConfig
from serving.discovery.directory import Directory, Model
from serving.tenancy.keys import Caller

# Serve's application states in which a model can be expected to answer.
_UP = frozenset({"RUNNING"})
_BROKEN = frozenset({"DEPLOY_FAILED", "UNHEALTHY"})


def model_card(model: Model, name: str | None = None) -> dict[str, Any]:
    """One model (or an adapter of it, by `name`) as OpenAI lists it, with what else one wants to know."""
    card = model.card
    served = model.served_name(name or model.id)
    return {
        "id": served,
        "object": "model",
        "created": card.created,
        "owned_by": card.vendor,
        "max_model_len": card.max_model_len,
        "task": card.task,
        "licence": card.licence,
        "vendor_jurisdiction": card.vendor_jurisdiction,
        "repository": card.repository,
        "revision": card.revision,
        "aliases": list(model.aliases) if served == model.id else [],
        "parent": None if served == model.id else model.id,
        "capabilities": list(card.capabilities or ()),
        "notices": list(card.notices),
    }


def card_for(caller: Caller, model: Model, name: str) -> dict[str, Any]:
    """The card of a model or an adapter that the caller may use; of a base that they may not, no name."""
    card = model_card(model, name)
    parent = card["parent"]
    return card if parent is None or caller.may_use(parent) else card | {"parent": None}


def name_card(name: str, config: RoutingConfig, directory: Directory) -> dict[str, Any]:
    """A name that routing gives to one or several models; to revisions of one, it is that model's card."""
    alias = config.aliases.get(name)
    for arm in alias.arms if alias else ():
        model = directory.get(arm.model)
        if model is not None and public_name(arm.model) == name:
            card = model_card(model, arm.model)
            return card | {"id": name, "parent": card["parent"] and public_name(card["parent"])}
    return {"id": name, "object": "model", "created": 0, "owned_by": "routing"}


def lifetime(config: RoutingConfig, name: str) -> dict[str, Any]:
    """When a name is deprecated and retired (ISO 8601 dates), and what follows it."""
    facts = config.aliases.get(name) or config.models.get(name)
    if facts is None:
        return {}
    return {
        "deprecated_on": facts.deprecated_on and facts.deprecated_on.isoformat(),
        "retired_on": facts.retired_on and facts.retired_on.isoformat(),
        "successor": facts.successor,
    }


def model_list(
    directory: Directory,
    caller: Caller,
    config: RoutingConfig | None = None,
    names: Collection[str] = (),
) -> dict[str, Any]:
    """The models that the caller may use, and the names that routing gives them."""
    config = config or RoutingConfig()
    cards = [name_card(name, config, directory) | lifetime(config, name) for name in names]
    cards += [
        card_for(caller, model, name) | lifetime(config, name)
        for model in sorted(directory.models.values(), key=lambda model: model.id)
        for name in (model.id, *model.adapters)
        # A name that is both means what routing makes of it.
        if caller.may_use(name) and name not in names
    ]
    return {"object": "list", "data": cards}


def model_state(model: Model) -> str:
    """ready, starting, idle (scaled to zero) or failed."""
    if model.replicas:
        return "ready"
    if model.state in _BROKEN:
        return "failed"
    return "idle" if model.state in _UP and model.card.min_replicas == 0 else "starting"


def readiness(directory: Directory, *, everyone: bool = False) -> tuple[dict[str, Any], int]:
    """Body and HTTP status: 200 when a model can answer, or with `everyone` when all can.

    One model that is being added, or fails, must not make a load balancer drop the others.
    """
    states = {model.id: model_state(model) for model in directory.models.values()}
    can = [state in ("ready", "idle") for state in states.values()]
    is_ready = bool(can) and (all(can) if everyone else any(can))
    return {"ready": is_ready, "models": states}, 200 if is_ready else 503
