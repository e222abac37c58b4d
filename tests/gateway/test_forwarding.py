"""Which replica a request goes to, and what happens when one does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from serving.discovery.directory import Directory, Model, Replica
from serving.errors import EngineFailedError, EngineTimeoutError
from serving.gateway import forwarding
from serving.gateway.forwarding import SUSPECT_S, Forwarder
from serving.gateway.replica_request import (
    NoReplicaError,
    ReplicaRequest,
    RetryState,
)
from serving.gateway.replica_response import ReplicaResponse
from serving.gateway.upstream import Gone, ReplicaGoneError
from serving.replica_facts import ModelCard
from serving.replica_protocol import Usage
from serving.settings import GatewayConfig

Reply = Callable[[Replica], Any]

STREAM_ERROR = b'data: {"error": {"message": "x", "code": 500}}\n\n'
DEAD = b'{"error": {"message": "EngineCore encountered an issue. See", "code": 500}}'
FREELY = {"max_attempts": 16, "share": 1.0, "min_per_s": 100}


class Answer:
    def __init__(
        self, first: bytes = b"data", status: int = 200, usage: Usage | None = None
    ) -> None:
        self.first, self.status, self.closed, self.usage = first, status, False, usage
        self.has_vanished = False

    def close(self) -> None:
        self.closed = True


class Upstream:
    """Answers as it is told, by replica; an exception is raised."""

    def __init__(self) -> None:
        self.replies: dict[str, Any] = {}
        self.asked: list[str] = []
        self.delays: dict[str, float] = {}

    async def post(
        self,
        replica: Replica,
        path: str,
        body: bytes,
        request_id: str,
        queued: int = 0,
        payer: str = "",
        connect_s: float | None = None,
    ) -> Any:
        self.asked.append(replica.id)
        await asyncio.sleep(self.delays.get(replica.id, 0))
        reply = self.replies.get(replica.id) or Answer()
        if callable(reply):
            reply = reply()
        if isinstance(reply, BaseException):
            raise reply
        return reply


class Site:
    def __init__(self, *names: str, **config: Any) -> None:
        self.now = 100.0
        self.upstream = Upstream()
        self.set_replicas(*names)
        self.forwarder = Forwarder(
            lambda: self.directory,
            self.upstream,  # type: ignore[arg-type]
            GatewayConfig.model_validate(
                {"replica_routing": {"policy": "least-loaded"}, "retries": FREELY} | config
            ),
            clock=lambda: self.now,
            draw=lambda: 0.0,  # among equals, the first
        )

    def set_replicas(self, *names: str) -> None:
        # "a1" is the first replica on the machine a.
        replicas = tuple(
            Replica(name, f"http://{name[0]}:{80 + at}", "t") for at, name in enumerate(names)
        )
        self.directory = Directory([Model("m", ModelCard(), replicas)])

    async def send(
        self,
        model: str = "m",
        tenant: str = "a",
        body: bytes = b"{}",
        tried: RetryState | None = None,
    ) -> ReplicaResponse:
        return await self.forwarder.open(
            ReplicaRequest(model, "/v1/x", body, "id", tenant=tenant), tried
        )

    async def open(self, model: str = "m", **request: Any) -> str:
        return (await self.send(model, **request)).replica.id

    def breaker(self, name: str) -> str:
        return self.forwarder.breakers.replica(name).snapshot(self.now).state


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "DEATH_PAUSE_S", 0.0)


async def test_requests_go_to_the_replica_with_the_fewest() -> None:
    site = Site("a", "b")
    for _ in range(3):
        assert {await site.open(), await site.open()} == {"a", "b"}
    assert site.forwarder.in_flight == {"a": 3, "b": 3}


async def test_a_finished_request_is_no_longer_counted() -> None:
    site = Site("a")
    response = await site.send()
    response.close()
    assert not site.forwarder.in_flight
    # More often than opened: nothing goes below zero.
    response.close()
    assert not site.forwarder.in_flight
    assert response.answer.closed  # type: ignore[attr-defined]


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
    with pytest.raises(NoReplicaError):
        await site.open()
    del site.upstream.replies["a"]
    assert await site.open() == "a"


async def test_each_replica_is_asked_once_and_then_the_client_is_told_to_come_back() -> None:
    site = Site("a", "b", "c")
    site.upstream.replies = {name: ReplicaGoneError("refused") for name in "abc"}
    with pytest.raises(NoReplicaError, match="no replica") as raised:
        await site.open()
    assert sorted(site.upstream.asked) == ["a", "b", "c"]
    assert raised.value.retry_after_s
    assert not site.forwarder.in_flight


@pytest.mark.parametrize("model", ["m", "other"], ids=["without replicas", "gone"])
async def test_a_model_that_nobody_answers_for_cannot_be_asked(model: str) -> None:
    site = Site()
    assert not site.forwarder.can_ask(model)
    with pytest.raises(NoReplicaError):
        await site.open(model)


async def test_an_error_event_before_the_first_token_moves_on_and_closes_the_first() -> None:
    site = Site("a", "b")
    site.upstream.replies["a"] = failed = Answer(STREAM_ERROR)
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
    site.upstream.replies = {"a": error, "b": error}
    with pytest.raises(type(error)):
        await site.open()
    assert len(site.upstream.asked) == 1
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


async def test_a_replica_that_keeps_failing_is_left_alone_and_later_probed() -> None:
    site = Site("a", "b", breaker={"consecutive_failures": 2, "open_s": 60, "max_open_s": 60})
    site.upstream.replies["a"] = ReplicaGoneError("refused")
    for _ in range(2):
        # Once suspicion has passed, it is tried again: the second failure opens its breaker.
        await site.open()
        site.now += SUSPECT_S + 0.1
    del site.upstream.replies["a"]
    site.upstream.asked.clear()
    assert {await site.open() for _ in range(4)} == {"b"}
    site.now += 61
    assert "a" in {await site.open() for _ in range(4)}


async def test_retries_end_with_their_budget() -> None:
    site = Site("a", "b", "c", retries={"share": 0, "min_per_s": 0.1, "window_s": 10})
    site.upstream.replies = {name: ReplicaGoneError("refused") for name in "abc"}
    with pytest.raises(NoReplicaError):
        await site.open()
    assert len(site.upstream.asked) == 2
    site.now += 0.1
    with pytest.raises(NoReplicaError):
        await site.open()
    assert len(site.upstream.asked) == 3


async def test_a_model_whose_replicas_all_fail_is_not_well_until_they_change() -> None:
    site = Site("a", breaker={"consecutive_failures": 2})
    site.upstream.replies["a"] = ReplicaGoneError("refused")
    for _ in range(2):
        assert site.forwarder.is_well("m")
        with pytest.raises(NoReplicaError):
            await site.open()
    assert not site.forwarder.is_well("m")
    site.set_replicas("b")
    await site.open()
    assert site.forwarder.is_well("m")


VANISHED = ReplicaGoneError("TimeoutError", Gone.VANISHED)


@pytest.mark.parametrize("gone", [VANISHED, ReplicaGoneError("TimeoutError", Gone.UNREACHABLE)])
async def test_after_an_unreachable_machine_another_machine_is_asked(gone: Exception) -> None:
    site = Site("a1", "a2", "a3", "b1")
    site.upstream.replies = dict.fromkeys(("a1", "a2", "a3"), gone)
    assert await site.open() == "b1"
    assert site.upstream.asked == ["a1", "b1"]


async def test_on_the_same_machine_if_there_is_no_other() -> None:
    site = Site("a1", "a2")
    site.upstream.replies["a1"] = ReplicaGoneError("TimeoutError", Gone.UNREACHABLE)
    assert await site.open() == "a2"


async def test_a_request_is_not_blamed_for_machines_that_vanish() -> None:
    site = Site("a", "b", "c")
    site.upstream.replies = {"a": VANISHED, "b": VANISHED}
    assert await site.open() == "c"


@pytest.mark.parametrize(
    ("gone", "answered"),
    [
        (VANISHED, 400),
        (ReplicaGoneError("closed", Gone.DIED), 400),
        # It lives, and may fail because it has too much to do.
        (Answer(STREAM_ERROR), 200),
    ],
    ids=["its machine vanished", "it died", "it failed"],
)
async def test_what_a_lost_replica_had_costs_nothing_of_the_retry_budget(
    gone: Any, answered: int
) -> None:
    site = Site("a", "b", retries={"share": 0, "min_per_s": 0})
    site.upstream.replies["a"] = gone
    site.upstream.delays["a"] = 0.05
    asking = [asyncio.create_task(site.open()) for _ in range(400)]
    done = await asyncio.gather(*asking, return_exceptions=True)
    assert site.upstream.asked.count("a") == 200
    assert done.count("b") == answered


async def test_each_request_is_sent_again_a_bounded_number_of_times_whatever_is_lost() -> None:
    site = Site("a", "b", "c", "d", retries={"max_attempts": 3, "share": 0, "min_per_s": 0})
    site.upstream.replies = {name: ReplicaGoneError("refused", Gone.REFUSED) for name in "abcd"}
    with pytest.raises(NoReplicaError):
        await site.open()
    assert len(site.upstream.asked) == 3


async def test_an_engine_that_dies_before_the_first_token_of_a_stream_is_lost() -> None:
    for first, answers in ((b"data: " + DEAD + b"\n\n", True), (STREAM_ERROR, False)):
        site = Site("a", "b", retries={"share": 0, "min_per_s": 0})
        site.upstream.replies["a"] = Answer(first)
        if answers:
            assert await site.open() == "b"
        else:
            with pytest.raises(EngineFailedError):
                await site.open()


async def test_a_slow_beginning_is_hedged_only_where_that_is_configured() -> None:
    for hedge_after_s, asked in ((None, 1), (0.02, 2)):
        site = Site("a", "b", retries=FREELY | {"hedge_after_s": hedge_after_s})
        first = "a" if await site.open() == "b" else "b"
        site.upstream.asked.clear()
        site.upstream.delays[first] = 0.2
        winner = await site.open()
        assert len(site.upstream.asked) == asked
        assert (winner == first) is (asked == 1)
        await asyncio.sleep(0.01)
        assert sum(site.forwarder.in_flight.values()) == 2


async def test_what_an_engine_had_cached_reaches_the_policy() -> None:
    site = Site("a", "b", replica_routing={"policy": "prefix"})
    assert site.forwarder.reads_prompts("m")
    site.upstream.replies = {name: Answer(usage=Usage(100, 0, 5)) for name in "ab"}
    seen: list[Any] = []
    response = await site.send()
    site.forwarder.lanes["m"].policy.served = lambda *args: seen.append(args)  # type: ignore[method-assign]
    response.close()
    assert seen == [(response.request.routed, response.choice, 0, 100)]
    site.set_replicas("a")
    assert not site.forwarder.reads_prompts("m")
