"""Which replica a request goes to, and what happens when one does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from serving.errors import EngineTimeoutError, ModelUnavailableError
from serving.gateway.forwarding import SUSPECT_S, Forwarder
from serving.gateway.upstream import ReplicaGoneError
from serving.routing.directory import Directory, Model, Replica

Reply = Callable[[Replica], Any]

STREAM_ERROR = b'data: {"error"'


class Answer:
    def __init__(self, first: bytes = b"data", status: int = 200) -> None:
        self.first, self.status, self.closed = first, status, False

    def close(self) -> None:
        self.closed = True


class Upstream:
    """Answers as it is told, by replica; an exception is raised."""

    def __init__(self) -> None:
        self.replies: dict[str, Any] = {}
        self.asked: list[str] = []

    async def post(self, replica: Replica, path: str, body: bytes, request_id: str) -> Any:
        self.asked.append(replica.id)
        await asyncio.sleep(0)
        reply = self.replies.get(replica.id) or Answer()
        if isinstance(reply, BaseException):
            raise reply
        return reply


class Site:
    def __init__(self, *names: str) -> None:
        self.now = 100.0
        self.woken: list[str] = []
        self.upstream = Upstream()
        self.set_replicas(*names)
        self.forwarder = Forwarder(
            lambda: self.directory,
            self.upstream,  # type: ignore[arg-type]
            clock=lambda: self.now,
            wake=lambda model: self.woken.append(model),
        )

    def set_replicas(self, *names: str) -> None:
        replicas = tuple(Replica(name, f"http://{name}", "t") for name in names)
        self.directory = Directory([Model("m", {}, replicas)])

    async def open(self, model: str = "m") -> str:
        _, replica = await self.forwarder.open(model, "/v1/x", b"{}", "id")
        return replica.id


async def test_requests_go_to_the_replica_with_the_fewest() -> None:
    site = Site("a", "b", "c")
    assert {await site.open() for _ in range(3)} == {"a", "b", "c"}
    assert site.forwarder.in_flight == {"a": 1, "b": 1, "c": 1}


async def test_a_finished_request_is_no_longer_counted() -> None:
    site = Site("a")
    _, replica = await site.forwarder.open("m", "/v1/x", b"{}", "id")
    site.forwarder.done(replica)
    assert not site.forwarder.in_flight
    # More often than opened: nothing goes below zero.
    site.forwarder.done(replica)
    assert not site.forwarder.in_flight


async def test_a_replica_that_is_gone_is_passed_over_and_later_asked_again() -> None:
    site = Site("a", "b")
    site.upstream.replies["a"] = ReplicaGoneError("refused")
    assert [await site.open() for _ in range(3)] == ["b", "b", "b"]
    assert site.upstream.asked == ["a", "b", "b", "b"]
    assert site.forwarder.in_flight == {"b": 3}
    del site.upstream.replies["a"]
    site.now += SUSPECT_S + 0.1
    assert await site.open() == "a"


async def test_a_suspect_is_asked_when_it_is_the_only_one() -> None:
    site = Site("a")
    site.upstream.replies["a"] = ReplicaGoneError("refused")
    with pytest.raises(ModelUnavailableError):
        await site.open()
    del site.upstream.replies["a"]
    assert await site.open() == "a"


async def test_each_replica_is_asked_once_and_then_the_client_is_told_to_come_back() -> None:
    site = Site("a", "b", "c")
    site.upstream.replies = {name: ReplicaGoneError("refused") for name in "abc"}
    with pytest.raises(ModelUnavailableError, match="no replica") as raised:
        await site.open()
    assert sorted(site.upstream.asked) == ["a", "b", "c"]
    assert raised.value.retry_after_s
    assert not site.forwarder.in_flight


async def test_a_model_without_replicas_is_woken_and_starting() -> None:
    site = Site()
    with pytest.raises(ModelUnavailableError, match="is starting"):
        await site.open()
    assert site.woken == ["m"]


async def test_a_model_removed_since_it_was_resolved_is_unavailable() -> None:
    site = Site("a")
    with pytest.raises(ModelUnavailableError):
        await site.open("other")
    assert site.woken == []


async def test_an_error_event_before_the_first_token_moves_on_and_closes_the_first() -> None:
    site = Site("a", "b")
    site.upstream.replies["a"] = failed = Answer(STREAM_ERROR + b': {"message": "x"}}\n\n')
    assert await site.open() == "b"
    assert failed.closed
    assert site.forwarder.in_flight == {"b": 1}


async def test_an_engines_refusal_is_an_answer_and_no_reason_to_ask_another() -> None:
    site = Site("a", "b")
    site.upstream.replies["a"] = Answer(STREAM_ERROR, status=400)
    assert await site.open() == "a"
    assert site.upstream.asked == ["a"]


@pytest.mark.parametrize("error", [EngineTimeoutError("late"), RuntimeError("bug")])
async def test_any_other_failure_ends_the_request_and_its_count(error: Exception) -> None:
    site = Site("a", "b")
    site.upstream.replies["a"] = error
    with pytest.raises(type(error)):
        await site.open()
    assert site.upstream.asked == ["a"]
    assert not site.forwarder.in_flight


async def test_a_cancelled_request_is_no_longer_counted() -> None:
    site = Site("a")
    request = asyncio.create_task(site.open())
    await asyncio.sleep(0)
    assert site.forwarder.in_flight == {"a": 1}
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    assert not site.forwarder.in_flight


async def test_a_replica_that_appears_meanwhile_is_used() -> None:
    site = Site("a")
    assert await site.open() == "a"
    site.set_replicas("a", "b")
    assert await site.open() == "b"
