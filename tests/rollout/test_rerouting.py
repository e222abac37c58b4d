"""The gateway's routing changes in place: as `user_config`, in files, in a gateway that answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.config.rerouting import routing_from, user_config, user_config_in
from serving.config.routing import RoutingConfig
from serving.deployment_file import load_deployment_file
from serving.discovery.directory import Directory, Model
from serving.errors import ConfigError
from serving.gateway.listing import model_list, name_card
from serving.replica_facts import ModelCard
from serving.rollout.document import read_site, same, with_routing
from serving.settings import ProcessSettings, hash_key
from serving.tenancy.keys import ANONYMOUS, Caller
from tests.rollout.sites import model, site

RICH: dict[str, Any] = {
    "aliases": {"fast": "glm", "chat": [{"model": "qwen3", "weight": 95}, {"model": "glm"}]},
    "models": {"qwen3": {"cost": 1, "retired_on": "2026-12-01", "successor": "fast"}},
    "fallbacks": {"qwen3": {"to": ["glm"], "after": ["saturated", "unhealthy", "context"]}},
    "auto": [{"name": "all", "choose": {"need": ["tools"]}}],
}


def test_routing_survives_the_way_through_serve() -> None:
    routing = RoutingConfig.model_validate(RICH)
    said = user_config(routing)
    assert routing_from(said) == routing
    assert said["routing"]["fallbacks"]["qwen3"]["after"] == ["context", "saturated", "unhealthy"]


def test_what_is_no_routing_is_refused() -> None:
    with pytest.raises(ConfigError, match="user_config: rooting: unknown key; known: routing"):
        routing_from({"rooting": {}})


def test_in_a_file_the_user_config_wins(tmp_path: Path) -> None:
    override = {"name": "GatewayReplica", "user_config": {"routing": {"aliases": {"new": "glm"}}}}
    document = site(routing={"aliases": {"old": "glm"}}, deployments=[override])
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(document))
    file = load_deployment_file(path, ProcessSettings())
    assert list(file.gateway.routing.aliases) == ["new"]


def test_a_rollout_leaves_keys_and_limits_in_the_user_config_alone() -> None:
    live = {"keys": [{"name": "a", "hash": hash_key("a")}], "limits": {"max_n": 2}}
    before = site(deployments=[{"name": "GatewayReplica", "user_config": live}])
    changed = with_routing(before, {"aliases": {"new": "glm"}})
    found = user_config_in(read_site(changed).gateway)
    assert found is not None
    assert {key: found[key] for key in live} == live
    assert list(read_site(changed).routing["aliases"]) == ["new"]
    assert same(with_routing(changed, {}), before)


def test_in_a_file_keys_of_the_user_config_win(tmp_path: Path) -> None:
    live = {"keys": [{"name": "new", "hash": hash_key("new")}], "limits": {"max_n": 2}}
    document = site(
        args={"keys": [{"name": "old", "hash": hash_key("old")}]},
        deployments=[{"name": "GatewayReplica", "user_config": live}],
    )
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(document))
    gateway = load_deployment_file(path, ProcessSettings()).gateway
    assert ([key.name for key in gateway.keys], gateway.limits.max_n) == (["new"], 2)


def test_a_wrong_user_config_in_a_file_is_named(tmp_path: Path) -> None:
    override = {"name": "GatewayReplica", "user_config": {"routing": {"aliases": {"a": []}}}}
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(site(deployments=[override])))
    with pytest.raises(ConfigError, match=r"user_config: routing\.aliases\.a\.arms"):
        load_deployment_file(path, ProcessSettings())


def test_a_key_for_a_model_is_one_for_its_revisions() -> None:
    caller = Caller("tenant", frozenset({"qwen3"}))
    assert caller.may_use("qwen3--r2")
    assert not caller.may_use("qwen3-large")
    assert not Caller("tenant", frozenset({"qwen3--r2"})).may_use("qwen3")


CARD = {"task": "chat", "vendor": "Qwen", "max_model_len": 4096, "adapters": ["law--r2"]}


def test_clients_see_the_model_behind_a_name_that_is_shared_by_its_revisions() -> None:
    routing = RoutingConfig.model_validate(
        {"aliases": {"qwen3": "qwen3--r2", "law": "law--r2", "fast": "qwen3--r2"}}
    )
    directory = Directory([Model("qwen3--r2", ModelCard.parse(CARD))])
    assert name_card("qwen3", routing, directory)["max_model_len"] == 4096
    law = name_card("law", routing, directory)
    assert (law["id"], law["parent"]) == ("law", "qwen3")
    assert name_card("fast", routing, directory)["owned_by"] == "routing"


def test_a_name_that_is_alias_and_model_is_listed_once() -> None:
    routing = RoutingConfig.model_validate({"aliases": {"qwen3": "qwen3"}})
    directory = Directory(
        [Model("qwen3", ModelCard.parse(CARD)), Model("qwen3--r2", ModelCard.parse(CARD))]
    )
    listed = model_list(directory, ANONYMOUS, routing, ["qwen3"])["data"]
    assert [one["id"] for one in listed].count("qwen3") == 1


def test_a_model_and_its_revision_can_stand_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(site(model("qwen3"), model("qwen3--r2"))))
    assert len(load_deployment_file(path, ProcessSettings()).models) == 2
