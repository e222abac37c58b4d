"""NIXL on a node: what to install, and where an engine answers those that fetch from it."""

from __future__ import annotations

import socket

import pytest

from serving.engine import nixl
from serving.errors import ConfigError


def test_every_engine_answers_at_an_address_of_its_own_on_the_replicas_host() -> None:
    first, second = (nixl.environment("127.0.0.1", {}) for _ in range(2))
    assert first["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "127.0.0.1"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", int(second["VLLM_NIXL_SIDE_CHANNEL_PORT"])))
    # UCX listens on every network of the machine otherwise.
    assert first["UCX_NET_DEVICES"] == "lo"


def test_nixl_may_use_every_network_where_replicas_do() -> None:
    assert "UCX_NET_DEVICES" not in nixl.environment("0.0.0.0", {})


def test_the_file_chooses_the_network_and_not_the_address() -> None:
    given = {"UCX_NET_DEVICES": "eth1", "VLLM_NIXL_SIDE_CHANNEL_PORT": "1"}
    env = nixl.environment("127.0.0.1", given)
    assert env["UCX_NET_DEVICES"] == "eth1"
    # Two engines of a node would want the same port.
    assert env["VLLM_NIXL_SIDE_CHANNEL_PORT"] != "1"


def test_a_node_without_nixl_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nixl, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"requirements/nixl\.txt"):
        nixl.check_installed()
