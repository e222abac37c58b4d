"""How many requests replicas can take, and how fast those that wait get through."""

from __future__ import annotations

import pytest

from serving.admission.drain import capacity
from serving.admission.fair_queue import FairQueue, Refusal
from serving.config.admission import AdmissionConfig
from serving.replica_facts import ReplicaStats
from tests.admission.fair import entry, offered, queue, serve

CONFIG = AdmissionConfig(
    max_open_per_replica=100,
    min_open_per_replica=8,
    max_waiting_per_replica=10,
    reserve_share=0.0,
)


@pytest.mark.parametrize(
    ("stats", "gateways", "slots"),
    [
        ([], 1, 0),
        ([{}], 1, 100),
        ([{"running": 300.0, "waiting": 0.0}], 1, 100),
        ([{}, {}, {}], 1, 300),
        ([{}, {}, {}], 2, 150),
        ([{}], 3, 34),
        ([{}], 1000, 1),
        # Requests that wait inside: what it runs, and ten more.
        ([{"running": 32.0, "waiting": 50.0}], 1, 42),
        ([{"running": 32.0, "waiting": 6.0}], 1, 42),
        ([{"running": 32.0, "waiting": 5.0}], 1, 100),
        ([{"running": 0.0, "waiting": 50.0}], 1, 10),
        ([{"running": 200.0, "waiting": 50.0}], 1, 100),
        ([{"running": 32.0, "waiting": 50.0}, {}], 1, 142),
    ],
)
def test_capacity(stats: list[dict[str, float]], gateways: int, slots: int) -> None:
    assert capacity(map(ReplicaStats.parse, stats), CONFIG, gateways) == slots


def test_capacity_has_a_floor() -> None:
    config = AdmissionConfig(min_open_per_replica=8, max_waiting_per_replica=2)
    assert capacity([ReplicaStats.parse({"running": 1.0, "waiting": 9.0})], config) == 8


def test_the_reserve_comes_on_top_of_what_an_engine_can_run() -> None:
    config = AdmissionConfig(min_open_per_replica=8, max_waiting_per_replica=10, reserve_share=0.2)
    slots = capacity([ReplicaStats.parse({"running": 30.0, "waiting": 20.0})], config)
    assert slots - int(slots * config.reserve_share) == 40


def test_capacity_grows_step_by_step_while_requests_wait() -> None:
    assert capacity([ReplicaStats.parse({"waiting": 0.0})], CONFIG, current=42) == 54
    assert capacity([ReplicaStats.parse({"waiting": 0.0})], CONFIG, current=1) == 3
    assert capacity([ReplicaStats.parse({"waiting": 0.0})], CONFIG, current=100) == 100
    assert (
        capacity([ReplicaStats.parse({"running": 32.0, "waiting": 50.0})], CONFIG, current=90) == 42
    )
    assert capacity([], CONFIG, current=90) == 0


def test_capacity_settles_where_few_wait_inside_the_engine() -> None:
    """An engine that runs 32 at once, reports every half second and has a gateway full of requests."""
    slots = capacity([ReplicaStats()], CONFIG)
    open_now, inside = 0, []
    for _ in range(100):
        # Half a second: eight answers end, and the gateway fills up to its capacity.
        open_now = max(open_now - 8, slots)
        running = min(32, open_now)
        inside.append(open_now - running)
        report = {"running": float(running), "waiting": float(open_now - running)}
        slots = capacity([ReplicaStats.parse(report)], CONFIG, current=slots)
    assert inside[0] == 68
    assert set(inside[20:]) == {10}


# ---- the drain rate ----------------------------------------------------------------------------------


def drained(line: FairQueue, per_s: float, seconds: float, start: float = 0.0) -> float:
    """Keep the queue busy and dispatch at a steady pace; the time at the end."""
    steps = int(per_s * seconds)
    for step in range(steps):
        now = start + step / per_s
        while line.waiting < 10:
            offered(line, entry("steady"), now)
        serve(line, 1, now)
    return start + steps / per_s


@pytest.mark.parametrize("per_s", [0.5, 4.0, 200.0])
def test_the_drain_rate_is_measured_while_requests_wait(per_s: float) -> None:
    line = queue()
    now = drained(line, per_s, 60)
    rate = line.snapshot(now).drain_per_s
    assert rate == pytest.approx(per_s, rel=0.1)


def test_dispatches_in_bursts_are_measured_right() -> None:
    line = queue()
    for second in range(60):
        while line.waiting < 20:
            offered(line, entry("steady"), float(second))
        serve(line, 10, float(second))
    assert line.snapshot(60.0).drain_per_s == pytest.approx(10, rel=0.1)


def test_time_in_which_nobody_waits_does_not_count() -> None:
    line = queue()
    now = drained(line, 4.0, 30)
    serve(line, line.waiting, now)
    before = line.snapshot(now).drain_per_s
    assert line.snapshot(now + 50).drain_per_s == before
    # After a long calm nothing of it is believed any more.
    assert line.snapshot(now + 500).drain_per_s is None


def test_a_refused_request_is_told_when_the_line_before_it_will_be_gone() -> None:
    line = queue(max_waiting=10)
    now = drained(line, 2.0, 60)
    offered(line, entry("steady"), now)
    refusal = line.offer(entry("steady"), now)
    assert refusal is not None
    assert refusal.retry_after_s == pytest.approx(11 / 2.0, rel=0.15)


def test_retry_after_is_bounded_and_has_a_value_before_anything_was_measured() -> None:
    line = queue(max_waiting=0, max_retry_after_s=30)
    refusal = line.offer(entry(), 0)
    assert refusal == Refusal("full", 5.0)
    slow = queue(max_waiting=10, max_retry_after_s=30)
    now = drained(slow, 0.05, 200)
    assert slow.retry_after_s(10) == 30
    assert queue().retry_after_s() >= 1
    assert slow.snapshot(now).drain_per_s is not None


def test_a_deadline_that_the_rate_cannot_meet_is_refused_at_once() -> None:
    line = queue()
    now = drained(line, 2.0, 60)
    refusal = line.offer(entry("steady", deadline_s=now + 3), now)
    assert refusal is not None
    assert refusal.reason == "deadline"
    offered(line, entry("steady", deadline_s=now + 9), now)


def test_a_deadline_is_judged_by_the_tenants_own_place_in_the_line() -> None:
    line = queue()
    now = drained(line, 2.0, 60)
    # Ten of the flood wait, but a newcomer goes second.
    offered(line, entry("newcomer", deadline_s=now + 3), now)
    refusal = line.offer(entry("batch", "batch", deadline_s=now + 3), now)
    assert refusal is not None
    assert refusal.reason == "deadline"


def test_the_first_in_line_is_never_refused_for_a_rate_measured_before() -> None:
    line = queue()
    now = drained(line, 0.2, 60)
    serve(line, line.waiting, now)
    offered(line, entry(deadline_s=now + 1), now)
