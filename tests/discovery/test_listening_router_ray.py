"""What the gateway takes over from Ray's view of a replica."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from serving.config.rerouting import GATEWAY_DEPLOYMENT
from serving.discovery import replica_table
from serving.discovery.listening_router_ray import ListeningRouter
from serving.replica_facts import ModelCard
from serving.replica_protocol import MODEL_DEPLOYMENT, PREFILL_DEPLOYMENT


def running(name: str, metadata: dict[str, Any], stats: dict[str, float] | None = None) -> Any:
    return SimpleNamespace(
        replica_id=SimpleNamespace(unique_id=name), replica_metadata=metadata, routing_stats=stats
    )


def metadata(host: str = "10.0.0.1", **more: Any) -> dict[str, Any]:
    return {"host": host, "port": 4000, "token": "t"} | more


@pytest.fixture
def router(monkeypatch: pytest.MonkeyPatch) -> ListeningRouter:
    """A router without Ray behind it: only what it adds to its parent runs."""
    parent = ListeningRouter.__mro__[1]
    monkeypatch.setattr(parent, "update_replicas", lambda *_: None, raising=False)
    monkeypatch.setattr(parent, "on_replica_actor_died", lambda *_: None, raising=False)
    monkeypatch.setattr(replica_table, "SEEN", {})
    monkeypatch.setattr(replica_table, "PREFILL_SEEN", {})
    monkeypatch.setattr(replica_table, "CARDS", {})
    monkeypatch.setattr(replica_table, "CHANGED_DEPLOYMENTS", set())
    return of_deployment(MODEL_DEPLOYMENT)


def of_deployment(name: str) -> ListeningRouter:
    router = ListeningRouter.__new__(ListeningRouter)
    router._deployment_id = SimpleNamespace(app_name="m", name=name)
    return router


def test_replicas_are_known_by_address_token_and_load(router: ListeningRouter) -> None:
    router.update_replicas([running("r1", metadata(), {"running": 2.0, "waiting": 1.0})])
    (seen,) = replica_table.SEEN["m"]
    assert (seen.id, seen.base_url, seen.token) == ("r1", "http://10.0.0.1:4000", "t")
    assert seen.stats.reported == {"running": 2.0, "waiting": 1.0}
    assert (seen.stats.running, seen.stats.waiting) == (2.0, 1.0)


def test_an_ipv6_address_is_put_in_brackets(router: ListeningRouter) -> None:
    router.update_replicas([running("r1", metadata("fd00::1"))])
    assert replica_table.SEEN["m"][0].base_url == "http://[fd00::1]:4000"


def test_a_replica_that_has_not_said_where_it_is_is_left_out(router: ListeningRouter) -> None:
    router.update_replicas([running("starting", {}), running("r1", metadata())])
    assert [seen.id for seen in replica_table.SEEN["m"]] == ["r1"]


def test_a_replica_of_another_build_is_known_by_what_both_understand(
    router: ListeningRouter,
) -> None:
    card = {"task": "chat", "aliases": "not a list", "colour": "red"}
    newer = metadata(card=card, protocol=2)
    older = {name: value for name, value in metadata().items() if name != "token"}
    router.update_replicas(
        [running("r1", newer, {"running": 2.0, "heat": 71.5}), running("r2", older)]
    )
    (seen,) = replica_table.SEEN["m"]
    assert (seen.id, seen.stats.running, seen.build) == ("r1", 2.0, "")
    assert seen.stats.reported == {"running": 2.0, "heat": 71.5}
    assert replica_table.CARDS["m"] == ModelCard(task="chat")


def test_a_report_that_repeats_itself_is_the_same_report(router: ListeningRouter) -> None:
    router.update_replicas([running("r1", metadata(), {"running": 2.0})])
    first = replica_table.SEEN["m"][0].stats
    router.update_replicas([running("r1", metadata(), {"running": 2.0})])
    assert replica_table.SEEN["m"][0].stats is first
    router.update_replicas([running("r1", metadata(), {"running": 3.0})])
    assert replica_table.SEEN["m"][0].stats is not first


def test_the_card_stays_when_the_last_replica_goes(router: ListeningRouter) -> None:
    router.update_replicas([running("r1", metadata(card={"task": "chat"}))])
    router.update_replicas([])
    assert replica_table.SEEN["m"] == ()
    assert replica_table.CARDS["m"] == ModelCard.parse({"task": "chat"})


def test_a_model_that_never_had_a_replica_is_known_by_its_deployment(
    router: ListeningRouter,
) -> None:
    router.initialize_state(card={"task": "chat", "aliases": ["a"]})
    assert replica_table.CARDS["m"] == ModelCard.parse({"task": "chat", "aliases": ["a"]})
    router.update_replicas([running("r1", metadata(card={"task": "chat", "max_model_len": 9}))])
    router.initialize_state(card={"task": "chat"})
    assert replica_table.CARDS["m"] == ModelCard.parse({"task": "chat", "max_model_len": 9})
    router.update_replicas([])
    router.initialize_state(card={"task": "chat"})
    assert replica_table.CARDS["m"] == ModelCard.parse({"task": "chat", "max_model_len": 9})
    of_deployment(PREFILL_DEPLOYMENT).initialize_state(card={"task": "none"})
    of_deployment(GATEWAY_DEPLOYMENT).initialize_state()
    assert replica_table.CARDS.keys() == {"m"}


def test_a_model_deployed_again_while_it_sleeps_is_what_its_deployment_says(
    router: ListeningRouter,
) -> None:
    router.update_replicas([running("r1", metadata(card={"task": "chat", "aliases": ["a"]}))])
    router.update_replicas([])
    router.initialize_state(card={"task": "chat", "aliases": ["b"]})
    assert replica_table.CARDS["m"] == ModelCard.parse({"task": "chat", "aliases": ["b"]})


def test_a_changed_deployment_is_noted_so_that_its_card_is_read_again(
    router: ListeningRouter,
) -> None:
    of_deployment(GATEWAY_DEPLOYMENT).update_backoff_params(0.1, 2.0, 1.0)
    of_deployment(PREFILL_DEPLOYMENT).update_backoff_params(0.1, 2.0, 1.0)
    assert not replica_table.CHANGED_DEPLOYMENTS
    router.update_backoff_params(0.1, 2.0, 1.0)
    assert list(replica_table.CHANGED_DEPLOYMENTS) == ["m"]


def test_a_dead_replica_is_forgotten_at_once(router: ListeningRouter) -> None:
    router.update_replicas([running("r1", metadata()), running("r2", metadata())])
    router.on_replica_actor_died(SimpleNamespace(unique_id="r1"))
    assert [seen.id for seen in replica_table.SEEN["m"]] == ["r2"]


async def test_ray_may_take_any_replica_for_control_calls(router: ListeningRouter) -> None:
    replicas = [running("r1", metadata())]
    assert await router.choose_replicas(replicas) == [replicas]


def test_prefill_replicas_are_kept_apart_and_do_not_say_what_the_model_is(
    router: ListeningRouter,
) -> None:
    router.update_replicas([running("r1", metadata(card={"min_replicas": 0}))])
    prefill = of_deployment(PREFILL_DEPLOYMENT)
    prefill.update_replicas([running("p1", metadata(card={"min_replicas": 2}))])
    assert [seen.id for seen in replica_table.SEEN["m"]] == ["r1"]
    assert [seen.id for seen in replica_table.PREFILL_SEEN["m"]] == ["p1"]
    assert replica_table.CARDS["m"] == ModelCard.parse({"min_replicas": 0})
    prefill.on_replica_actor_died(SimpleNamespace(unique_id="p1"))
    assert replica_table.PREFILL_SEEN["m"] == ()
    assert replica_table.SEEN["m"]


def test_gateways_tell_each_other_what_they_have_asked(
    router: ListeningRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_table, "GATEWAYS", {})
    gateways = of_deployment(GATEWAY_DEPLOYMENT)
    asked: Any = {"m": {"open": 2.0}}
    gateways.update_replicas([running("g1", {}, asked), running("g2", {}, None)])
    assert {"g1": asked, "g2": {}} == replica_table.GATEWAYS
    gateways.update_replicas([running("g1", {}, asked)])
    assert {"g1": asked} == replica_table.GATEWAYS
    gateways.on_replica_actor_died(SimpleNamespace(unique_id="g1"))
    assert (replica_table.GATEWAYS, replica_table.SEEN) == ({}, {})
