"""Gateways at one port of a machine know of each other."""

from __future__ import annotations

import pytest

from serving.gateway import neighbours
from serving.gateway.neighbours import Neighbours


def test_one_that_takes_connections_is_seen_until_it_leaves() -> None:
    old, new = Neighbours("127.0.0.1", 41234), Neighbours("127.0.0.1", 41234)
    old.join()
    assert not old.are_there()
    assert new.are_there()
    new.join()
    assert old.are_there()
    new.leave()
    assert not old.are_there()
    old.leave()
    assert not new.are_there()


def test_two_that_leave_at_once_do_not_count_on_each_other() -> None:
    one, other = Neighbours("127.0.0.1", 41235), Neighbours("127.0.0.1", 41235)
    for each in (one, other):
        each.join()
    for each in (one, other):
        each.leave()
    assert not one.are_there()
    assert not other.are_there()


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.2", 41236), ("127.0.0.1", 4123), ("::1", 41236)]
)
def test_another_address_is_nobodys_neighbour(host: str, port: int) -> None:
    one, other = Neighbours("127.0.0.1", 41236), Neighbours(host, port)
    one.join()
    assert not other.are_there()
    one.leave()


def test_without_the_list_nobody_is_taken_to_be_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(neighbours, "LIST", tmp_path_factory.mktemp("proc") / "unix")
    one, other = Neighbours("127.0.0.1", 41237), Neighbours("127.0.0.1", 41237)
    other.join()
    assert not one.are_there()
    other.leave()
