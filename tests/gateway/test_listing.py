"""What the gateway says of its models."""

from __future__ import annotations

from typing import Any

import pytest

from serving.discovery.directory import Directory, Model, Replica
from serving.gateway import listing
from serving.replica_facts import ModelCard, ReplicaStats
from serving.tenancy.keys import ANONYMOUS, Caller

CARD = {
    "task": "chat",
    "vendor": "Vendor",
    "vendor_jurisdiction": "CN",
    "licence": "MIT License",
    "repository": "vendor/model",
    "revision": "abc",
    "max_model_len": 4096,
    "aliases": ["fast"],
    "capabilities": ["tools"],
    "notices": ["keep this"],
}
ASLEEP = CARD | {"min_replicas": 0}
REPLICA = Replica(
    "r1",
    "http://10.0.0.1:1",
    "door-token",
    ReplicaStats.parse({"running": 2.0, "tokens_per_s": 1.23456}),
)


def model(name: str = "m", card: Any = CARD, *replicas: Replica, state: str = "RUNNING") -> Model:
    return Model(name, ModelCard.parse(card), replicas, state)


def test_a_card_says_what_a_customer_asks() -> None:
    assert listing.model_card(model()) == {
        "id": "m",
        "object": "model",
        "created": 0,
        "owned_by": "Vendor",
        "max_model_len": 4096,
        "task": "chat",
        "licence": "MIT License",
        "vendor_jurisdiction": "CN",
        "repository": "vendor/model",
        "revision": "abc",
        "aliases": ["fast"],
        "parent": None,
        "capabilities": ["tools"],
        "notices": ["keep this"],
    }


def test_a_model_that_has_not_started_has_a_card_too() -> None:
    card = listing.model_card(model(card={}))
    assert card["id"] == "m"
    assert card["owned_by"] == "unknown"
    assert (card["aliases"], card["notices"]) == ([], [])


def test_models_are_listed_by_name_and_only_those_a_key_may_use() -> None:
    directory = Directory([model("b"), model("a"), model("c")])
    assert [card["id"] for card in listing.model_list(directory, ANONYMOUS)["data"]] == [*"abc"]
    caller = Caller("k", frozenset({"c", "none"}))
    assert [card["id"] for card in listing.model_list(directory, caller)["data"]] == ["c"]


@pytest.mark.parametrize(
    ("one", "state"),
    [
        (model("m", CARD, REPLICA), "ready"),
        (model("m", CARD, REPLICA, state="DEPLOYING"), "ready"),
        (model("m", CARD, REPLICA, state="UNHEALTHY"), "ready"),
        (model("m", ASLEEP), "idle"),
        (model("m", CARD | {"min_replicas": 1}), "starting"),
        (model("m", {}), "starting"),
        (model("m", {}, state="DEPLOYING"), "starting"),
        (model("m", CARD, state="DEPLOYING"), "starting"),
        (model("m", {}, state="DEPLOY_FAILED"), "failed"),
        (model("m", CARD, state="UNHEALTHY"), "failed"),
    ],
)
def test_a_models_state_follows_its_replicas_first(one: Model, state: str) -> None:
    assert listing.model_state(one) == state


@pytest.mark.parametrize(
    ("models", "status"),
    [
        ([], 503),
        ([model("m", CARD, REPLICA)], 200),
        ([model("m", CARD, REPLICA), model("asleep", ASLEEP)], 200),
        ([model("m", CARD, REPLICA), model("n", {}, state="DEPLOYING")], 503),
        ([model("m", {}, state="DEPLOY_FAILED")], 503),
    ],
)
def test_the_site_is_ready_when_every_model_answers_or_sleeps(
    models: list[Model], status: int
) -> None:
    body, got = listing.readiness(Directory(models), everyone=True)
    assert got == status
    assert body["ready"] is (status == 200)
    assert set(body["models"]) == {one.id for one in models}
