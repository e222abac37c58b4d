"""Whose fault an answer is: the replica's or the request's, and what a tenant's requests do to breakers."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.discovery.directory import Directory, Model, Replica
from serving.errors import AnswerTooLongError, EngineFailedError, EngineTimeoutError
from serving.gateway import forwarding
from serving.gateway.blame import judge, names_a_dead_engine
from serving.gateway.replica_request import NoReplicaError, RetryState
from serving.gateway.upstream import Gone, ReplicaGoneError
from serving.replica_facts import ModelCard, ReplicaStats
from tests.gateway.test_forwarding import DEAD, FREELY, STREAM_ERROR, Answer, Site

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)

REFUSED = b'data: {"error": {"message": "Grammar error: x", "code": 400, "param": null}}\n\n'
FAILS = Answer(b"{}", status=500)
GONE = ReplicaGoneError("refused", Gone.REFUSED)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "DEATH_PAUSE_S", 0.0)


# ---- what an answer says -------------------------------------------------------------------------------


def event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\n".encode() + b"data: " + orjson.dumps(data) + b"\n\n"


@pytest.mark.parametrize(
    ("status", "first", "verdict"),
    [
        (200, b'data: {"choices": []}\n\n', "answered"),
        (200, b'{"error": "a model may say so"}', "answered"),
        (200, REFUSED, "refused"),
        (200, REFUSED + b"data: [DONE]\n\n", "refused"),
        (200, event("error", {"error": {"message": "x", "code": 422}}), "refused"),
        (200, event("error", {"type": "error", "error": {"type": "internal_error"}}), "failed"),
        (200, event("response.failed", {"response": {"error": {"code": "x"}}}), "failed"),
        (200, STREAM_ERROR, "failed"),
        (200, b'data: {"error"', "failed"),
        (200, b"data: " + DEAD + b"\n\n", "dead"),
        (400, b"{}", "refused"),
        (404, b"{}", "refused"),
        (501, b"{}", "refused"),
        (500, b"{}", "failed"),
        (503, b'{"error": {"message": "queue overflow"}}', "busy"),
        (500, DEAD, "dead"),
    ],
)
def test_an_answer_is_judged_by_its_beginning(status: int, first: bytes, verdict: str) -> None:
    assert judge(status, first).verdict == verdict


def test_a_refusal_in_a_stream_keeps_its_status_and_its_words() -> None:
    refusal = judge(200, REFUSED).refusal
    assert refusal is not None
    assert refusal.status == 400
    assert orjson.loads(refusal.body)["error"]["message"] == "Grammar error: x"


def test_a_client_cannot_put_a_dead_engine_into_an_error() -> None:
    echoed = orjson.dumps({"error": {"message": "bad: EngineCore encountered an issue"}})
    assert not names_a_dead_engine(echoed)
    assert judge(500, echoed).verdict == "failed"


@given(st.integers(200, 599), st.binary(max_size=80))
@unhurried
def test_any_bytes_are_judged(status: int, first: bytes) -> None:
    for beginning in (judge(status, first), judge(status, b'data: {"error"' + first)):
        assert beginning.verdict in ("answered", "refused", "failed", "busy", "dead")


# ---- what follows -------------------------------------------------------------------------------------


async def test_a_failure_is_tried_once_more_and_an_answer_counts_against_the_first() -> None:
    site = Site("a", "b", breaker={"consecutive_failures": 2})
    site.upstream.replies["a"] = FAILS
    for tenant in ("one", "two"):
        assert site.breaker("a") == "closed"
        assert await site.open(tenant=tenant) == "b"
        site.forwarder.in_flight.clear()
    assert (site.breaker("a"), site.breaker("b")) == ("open", "closed")


async def test_a_request_at_which_two_fail_is_the_cause_and_is_held_back_for_its_tenant() -> None:
    site = Site("a", "b", "c", breaker={"consecutive_failures": 1})
    site.upstream.replies = dict.fromkeys("abc", FAILS)
    with pytest.raises(EngineFailedError):
        await site.open(tenant="one", body=b"poison")
    assert len(site.upstream.asked) == 2
    assert {site.breaker(name) for name in "abc"} == {"closed"}
    held = site.forwarder.quarantine
    assert len(held) == 1


async def test_with_one_replica_a_failure_says_nothing() -> None:
    site = Site("a", breaker={"consecutive_failures": 1})
    site.upstream.replies["a"] = FAILS
    for tenant in ("one", "two", "three"):
        with pytest.raises(EngineFailedError):
            await site.open(tenant=tenant)
    assert site.breaker("a") == "closed"
    assert site.forwarder.is_well("m")
    assert len(site.forwarder.quarantine) == 0


async def test_two_busy_engines_hold_nothing_back() -> None:
    site = Site("a", "b")
    site.upstream.replies = dict.fromkeys("ab", Answer(b'{"error": {}}', status=503))
    with pytest.raises(EngineFailedError):
        await site.open()
    assert len(site.forwarder.quarantine) == 0


async def test_a_request_under_which_two_engines_die_is_held_back() -> None:
    site = Site("a", "b", "c")
    site.upstream.replies = dict.fromkeys("abc", ReplicaGoneError("closed", Gone.DIED))
    with pytest.raises(EngineFailedError):
        await site.open()
    assert len(site.upstream.asked) == 2
    assert len(site.forwarder.quarantine) == 1


async def test_what_kills_two_replicas_at_once_is_not_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site("a", "b", "c")
    # It is sent on only when those that died with the first one refuse connections.
    site.upstream.replies["a"] = ReplicaGoneError("closed", Gone.DIED)
    site.upstream.replies["b"] = GONE
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(forwarding, "DEATH_PAUSE_S", 0.5)
    monkeypatch.setattr(forwarding.asyncio, "sleep", sleep)
    monkeypatch.setattr("tests.gateway.test_forwarding.asyncio.sleep", sleep)
    tried = RetryState()
    assert await site.open(tried=tried) == "c"
    assert tried.deaths == 1
    assert slept.count(0.5) == 1


@pytest.mark.parametrize("fault", [GONE, ReplicaGoneError("x", Gone.VANISHED), Answer(DEAD, 500)])
async def test_a_replica_at_fault_is_left_alone_with_one_tenant_on_the_site(fault: Any) -> None:
    site = Site("a", breaker={"consecutive_failures": 3})
    site.upstream.replies["a"] = fault
    for number in range(3):
        with pytest.raises(NoReplicaError):
            await site.open(body=b"%d" % number)
    assert site.breaker("a") == "open"
    assert not site.forwarder.can_ask("m")


# ---- silence ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("last_step_s", "blamed"), [(8.0, False), (7.0, True), (None, True)])
async def test_silence_is_the_replicas_fault_only_without_a_step(
    last_step_s: float | None, blamed: bool
) -> None:
    site = Site("a", "b", breaker={"consecutive_failures": 1})

    def stats(step_s: float | None) -> None:
        told = ReplicaStats(last_step_s=step_s)
        replicas = (Replica("a", "http://a:80", "t", told), Replica("b", "http://b:80", "t"))
        site.directory = Directory([Model("m", ModelCard(), replicas)])

    stats(None if last_step_s is None else 7.0)
    site.upstream.replies["a"] = EngineTimeoutError("late")
    site.upstream.delays["a"] = 0.01
    asking = asyncio.create_task(site.open())
    await asyncio.sleep(0)
    stats(last_step_s)
    with pytest.raises(EngineTimeoutError) as raised:
        await asking
    assert isinstance(raised.value, AnswerTooLongError) is not blamed
    assert site.breaker("a") == ("open" if blamed else "closed")
    assert site.upstream.asked == ["a"]


# ---- no tenant alone ----------------------------------------------------------------------------------

FAULTS: dict[str, Any] = {
    "answers": None,
    "5xx": FAILS,
    "busy": Answer(b"{}", status=503),
    "4xx": Answer(b"{}", status=400),
    "error event": Answer(STREAM_ERROR),
    "refusal event": Answer(REFUSED),
    "long": None,
    "breaks": None,
    "cancelled": None,
}


@given(
    st.integers(1, 3),
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from("abc"), st.sampled_from(list(FAULTS))),
            st.integers(0, 3),
            st.floats(0.0, 4.0),
        ),
        max_size=40,
    ),
)
@unhurried
def test_whatever_one_tenant_sends_no_breaker_moves(
    replicas: int, requests: list[tuple[dict[str, str], int, float]]
) -> None:
    async def play() -> None:
        names, steps = "abc"[:replicas], itertools.count()
        site = Site(*names, breaker={"consecutive_failures": 1, "min_requests": 1})

        def silent() -> EngineTimeoutError:
            # The engines live: they take steps meanwhile.
            stats = ReplicaStats(last_step_s=float(next(steps)))
            there = tuple(Replica(name, f"http://{name}", "t", stats) for name in names)
            site.directory = Directory([Model("m", ModelCard(), there)])
            return EngineTimeoutError("late")

        for faults, body, passed in requests:
            site.now += passed
            site.upstream.replies = {
                name: silent if fault == "long" else FAULTS[fault] for name, fault in faults.items()
            }
            asking = asyncio.create_task(site.send(body=b"%d" % body))
            await asyncio.sleep(0)
            if "cancelled" in faults.values():
                asking.cancel()
            (done,) = await asyncio.gather(asking, return_exceptions=True)
            if isinstance(done, BaseException):
                assert isinstance(
                    done, EngineFailedError | EngineTimeoutError | asyncio.CancelledError
                )
                continue
            if faults.get(done.replica.id) == "breaks":
                done.broke()
            done.close()
        assert {site.breaker(name) for name in names} == {"closed"}
        assert site.forwarder.is_well("m")
        assert not site.forwarder._lanes.suspects
        assert not site.forwarder.in_flight

    asyncio.run(play())


# ---- what a retry and a hedge cost --------------------------------------------------------------------


async def test_a_hedge_takes_from_the_retry_budget() -> None:
    for share, asked in ((0.0, 1), (1.0, 2)):
        site = Site("a", "b", retries={"share": share, "min_per_s": 0, "hedge_after_s": 0.01})
        site.upstream.delays["a"] = 0.05
        await site.open()
        assert len(site.upstream.asked) == asked


async def test_hedges_and_retries_together_stay_within_the_attempts_of_a_request() -> None:
    site = Site("a", "b", retries=FREELY | {"max_attempts": 1, "hedge_after_s": 0.01})
    site.upstream.delays["a"] = 0.05
    assert await site.open() == "a"
    assert site.upstream.asked == ["a"]


async def test_retries_of_one_tenant_leave_the_others_theirs() -> None:
    site = Site("a", "b", retries={"share": 0.1, "min_per_s": 0})
    site.upstream.replies["a"] = FAILS

    async def is_answered(tenant: str) -> bool:
        site.forwarder.in_flight.clear()
        try:
            await site.open(tenant=tenant)
        except EngineFailedError:
            return False
        return True

    answered = [await is_answered("flood") for _ in range(45)]
    assert answered[-1] is False
    assert await is_answered("small")
