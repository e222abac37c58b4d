"""Routes of the tests, in one line."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import date
from typing import Any

from serving.config.routing import RoutingConfig
from serving.discovery.directory import Directory, Model
from serving.replica_facts import ModelCard
from serving.routing.features import RequestFeatures
from serving.routing.route import Route
from serving.routing.router import ModelRouter

TODAY = date(2026, 7, 1)
PLAIN = RequestFeatures("chat")


def directory(*names: str, **cards: dict[str, Any]) -> Directory:
    return Directory(
        [Model(name, ModelCard(task="chat")) for name in names]
        + [Model(name, ModelCard.parse({"task": "chat"} | card)) for name, card in cards.items()]
    )


def router(**fields: Any) -> ModelRouter:
    return ModelRouter(RoutingConfig.model_validate(fields))


def route(
    one: ModelRouter,
    name: str,
    known: Directory,
    *,
    features: RequestFeatures | None = PLAIN,
    may_use: Callable[[str], bool] = lambda name: True,
    key: str = "k",
    today: date = TODAY,
    tasks: Collection[str] = ("chat",),
) -> Route:
    return one.route(name, features, known, may_use, key, today, tasks)


def names(found: Route) -> list[str]:
    return [candidate.served_name for candidate in found.candidates]
