"""The fair queue: who goes next, who has to leave, what is measured; and that a flood harms nobody else."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from serving.config.admission import PRIORITIES, AdmissionConfig, Priority
from serving.routing.fair_queue import FairQueue, Refusal
from serving.routing.fair_shares import Entry

# A busy machine is no failure.
unhurried = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


def queue(**keys: Any) -> FairQueue:
    return FairQueue(AdmissionConfig(**keys))


def entry(tenant: str = "a", priority: Priority = "standard", **fields: Any) -> Entry:
    fields = {"prompt_tokens": 100, "max_output_tokens": 0} | fields
    return Entry(tenant, priority, **fields)


def offered(line: FairQueue, one: Entry, now: float = 0.0) -> Entry:
    assert line.offer(one, now) is None
    return one


def serve(line: FairQueue, times: int, now: float = 0.0) -> list[str]:
    """Dispatch so many and finish each as it was estimated; the tenants in their order."""
    served = []
    for _ in range(times):
        one = line.next(now)
        assert one is not None
        line.finished(one)
        served.append(one.tenant)
    return served


# ---- shares ------------------------------------------------------------------------------------------


def test_a_tenant_alone_is_served_in_the_order_of_its_requests() -> None:
    line = queue()
    wanted = [offered(line, entry()) for _ in range(5)]
    assert [line.next(0) for _ in range(6)] == [*wanted, None]


def test_tenants_take_turns_however_many_requests_one_of_them_has() -> None:
    line = queue()
    for _ in range(8):
        offered(line, entry("flood"))
    for _ in range(2):
        offered(line, entry("calm"))
    assert serve(line, 6) == ["flood", "calm", "flood", "calm", "flood", "flood"]


def test_what_counts_is_tokens_and_not_requests() -> None:
    line = queue()
    for _ in range(9):
        offered(line, entry("long", prompt_tokens=300))
        offered(line, entry("short", prompt_tokens=100))
    assert Counter(serve(line, 12)) == {"short": 9, "long": 3}


def test_output_tokens_count_double_by_default() -> None:
    line = queue(expected_output_tokens=100)
    for _ in range(9):
        offered(line, entry("writes", prompt_tokens=0, max_output_tokens=100))
        offered(line, entry("reads", prompt_tokens=100))
    assert Counter(serve(line, 12)) == {"reads": 8, "writes": 4}


def test_a_tenant_of_twice_the_weight_is_served_twice_as_much() -> None:
    line = queue()
    for _ in range(20):
        offered(line, entry("heavy", weight=2.0))
        offered(line, entry("light", weight=1.0))
    assert Counter(serve(line, 18)) == {"heavy": 12, "light": 6}


def test_an_idle_tenant_saves_up_nothing() -> None:
    line = queue()
    for _ in range(60):
        offered(line, entry("busy"))
    serve(line, 20)
    for _ in range(10):
        offered(line, entry("back"))
    # It is lifted to the other's counter; with 20 requests of credit it would go ten times in a row.
    assert serve(line, 6) == ["busy", "back", "busy", "back", "busy", "back"]


def test_what_was_used_while_nobody_waited_is_held_against_nobody() -> None:
    line = queue()
    for _ in range(50):
        line.admit(entry("early"))
    for _ in range(3):
        offered(line, entry("early"))
        offered(line, entry("late"))
    assert Counter(serve(line, 4)) == {"early": 2, "late": 2}


def test_the_estimate_is_replaced_by_the_engines_usage() -> None:
    line = queue()
    for _ in range(12):
        offered(line, entry("a"))
        offered(line, entry("b"))
    first = line.next(0)
    assert first is not None
    assert first.tenant == "a"
    line.finished(first, prompt_tokens=400, output_tokens=0)
    assert serve(line, 5) == ["b", "b", "b", "b", "a"]


def test_a_request_whose_usage_is_unknown_costs_what_was_estimated() -> None:
    line = queue()
    for _ in range(4):
        offered(line, entry("a"))
        offered(line, entry("b"))
    one = line.next(0)
    assert one is not None
    line.finished(one)
    assert serve(line, 3) == ["b", "a", "b"]


def test_a_request_that_never_reached_an_engine_costs_nothing() -> None:
    line = queue()
    offered(line, entry("a", prompt_tokens=10_000))
    for _ in range(4):
        offered(line, entry("a"))
        offered(line, entry("b"))
    one = line.next(0)
    assert one is not None
    assert one.tenant == "a"
    line.give_back(one)
    assert line.open == 0
    assert Counter(serve(line, 4)) == {"a": 2, "b": 2}


def test_requests_of_no_tokens_do_not_go_first_for_ever() -> None:
    line = queue()
    offered(line, entry("a"))
    for _ in range(200):
        offered(line, entry("empty", prompt_tokens=0))
    last = offered(line, entry("a"))
    serve(line, 110)
    assert last.state == "finished"


def test_finishing_twice_counts_once() -> None:
    line = queue()
    one = entry("a")
    line.admit(one)
    line.finished(one, 50, 0)
    line.finished(one, 10**6, 0)
    line.give_back(one)
    assert line.open == 0
    assert line._shares["standard"].accounts["a"].counter == 50


def test_the_expected_output_is_learned_and_not_taken_from_max_tokens() -> None:
    line = queue(expected_output_tokens=1000)
    for _ in range(40):
        one = entry("short", prompt_tokens=10, max_output_tokens=4000)
        line.admit(one)
        line.finished(one, 10, 20)
    one = entry("short", prompt_tokens=10, max_output_tokens=4000)
    line.admit(one)
    assert one.charged == pytest.approx(10 + 2 * 20, rel=0.05)
    # A tenant that nothing is known of is taken to be like the others; a limit of its own is believed.
    line.admit(newcomer := entry("new", prompt_tokens=10, max_output_tokens=4000))
    assert newcomer.charged == pytest.approx(10 + 2 * 20, rel=0.05)
    line.admit(limited := entry("new", prompt_tokens=10, max_output_tokens=5))
    assert limited.charged == 10 + 2 * 5


@given(
    weights=st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0]), min_size=2, max_size=5),
    costs=st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), min_size=1, max_size=7),
    in_service=st.integers(1, 5),
)
@unhurried
def test_under_continuous_backlog_service_follows_the_weights(
    weights: list[float], costs: list[tuple[int, int]], in_service: int
) -> None:
    """Normalised service of any two tenants stays within a bound that does not grow (as proved there)."""
    line = queue(expected_output_tokens=100)
    served = [0.0] * len(weights)
    numbers = iter(range(10**9))
    running: deque[Entry] = deque()

    def top_up() -> None:
        for tenant, weight in enumerate(weights):
            while len(line_of(line, str(tenant))) < 2:
                prompt, _ = costs[next(numbers) % len(costs)]
                offered(
                    line,
                    entry(str(tenant), weight=weight, prompt_tokens=prompt, max_output_tokens=200),
                )

    def end_one() -> None:
        done = running.popleft()
        output = costs[done.sequence % len(costs)][1]
        line.finished(done, done.prompt_tokens, output)
        served[int(done.tenant)] += (done.prompt_tokens + 2 * output) / done.weight

    dearest = (200 + 2 * 200) / min(weights)
    for _ in range(300):
        top_up()
        one = line.next(0)
        assert one is not None
        running.append(one)
        if len(running) == in_service:
            end_one()
    # What runs is charged by prediction, which errs by at most one answer each.
    assert max(served) - min(served) <= 2 * dearest + (in_service - 1) * dearest


def line_of(line: FairQueue, tenant: str) -> Sequence[int]:
    """The numbers of a tenant's standard requests that wait."""
    account = line._shares["standard"].active.get(tenant)
    return tuple(account.waiting) if account is not None else ()


def test_the_tenants_remembered_are_bounded() -> None:
    line = queue(max_tenants=8)
    for number in range(200):
        offered(line, entry(f"once-{number}"))
        serve(line, 1)
        assert line.snapshot(0).tenants <= 8


def test_tenants_that_wait_or_have_open_requests_are_never_forgotten() -> None:
    line = queue(max_tenants=2)
    entries = [offered(line, entry(f"t{number}")) for number in range(6)]
    dispatched = [line.next(0) for _ in range(3)]
    assert line.snapshot(0).tenants == 6
    for one in (*dispatched, *(line.next(0) for _ in range(3))):
        assert one is not None
        line.finished(one, 100, 0)
    assert {one.state for one in entries} == {"finished"}
    offered(line, entry("another"))
    assert line.snapshot(0).tenants <= 6


def test_a_stream_of_ever_new_tenants_does_not_starve_an_old_one() -> None:
    line = queue(max_tenants=4)
    debt = entry("old")
    line.admit(debt)
    for number in range(3):
        offered(line, entry(f"first-{number}"))
    line.finished(debt, 5000, 0)
    waits = offered(line, entry("old"))
    for number in range(1000):
        offered(line, entry(f"new-{number}"))
        serve(line, 1)
        if waits.state != "waiting":
            return
    pytest.fail("it was passed over a thousand times")


# ---- classes -----------------------------------------------------------------------------------------


def test_a_higher_class_goes_first() -> None:
    line = queue()
    for priority in reversed(PRIORITIES):
        for _ in range(2):
            offered(line, entry(priority, priority))
    assert serve(line, 6) == ["interactive"] * 2 + ["standard"] * 2 + ["batch"] * 2


def test_a_lower_class_that_waits_gets_one_of_so_many_dispatches() -> None:
    line = queue(aging_dispatches=5)
    for _ in range(40):
        offered(line, entry("i", "interactive"))
    for _ in range(4):
        offered(line, entry("b", "batch"))
    assert serve(line, 20) == (["i"] * 4 + ["b"]) * 4


def test_both_lower_classes_get_theirs() -> None:
    line = queue(aging_dispatches=4)
    for priority in PRIORITIES:
        for _ in range(30):
            offered(line, entry(priority[0], priority))
    served = serve(line, 24)
    assert "".join(served).startswith("iiisb")
    assert min(Counter(served).values()) >= 5


def test_a_class_does_not_age_while_nobody_waits_in_it() -> None:
    line = queue(aging_dispatches=5)
    for _ in range(40):
        offered(line, entry("i", "interactive"))
    gone = offered(line, entry("b", "batch"))
    serve(line, 4)
    line.cancel(gone)
    offered(line, entry("b", "batch"))
    assert serve(line, 5) == ["i"] * 4 + ["b"]


@given(
    others=st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(PRIORITIES), st.integers(1, 50)),
        min_size=1,
        max_size=12,
    ),
    priority=st.sampled_from(PRIORITIES),
    before=st.integers(0, 5),
    aging=st.integers(2, 8),
)
@example([("a", "interactive", 1)], "batch", 5, 8)
@unhurried
def test_nobody_starves(
    others: list[tuple[str, Priority, int]], priority: Priority, before: int, aging: int
) -> None:
    """However the others flood, a request leaves after a number of dispatches that can be told beforehand."""
    line = queue(aging_dispatches=aging, max_waiting=1000)
    arrivals = (others[number % len(others)] for number in range(10**9))

    def flood() -> None:
        while line.waiting < 40:
            tenant, kind, tokens = next(arrivals)
            offered(line, entry(tenant, kind, prompt_tokens=tokens))

    for _ in range(before):
        offered(line, entry("z", priority, prompt_tokens=50))
    flood()
    waits = offered(line, entry("z", priority, prompt_tokens=50))
    # In its class: until `before + 1` requests of 50 tokens are paid for, each of four others is served so
    # much at the least price, and one request more; of the dispatches, one of `aging + 1` is its class's.
    bound = ((before + 1) * (4 * 50 + 5)) * (aging + 1)
    for _ in range(bound):
        serve(line, 1)
        flood()
        if waits.state != "waiting":
            return
    pytest.fail(f"still waiting after {bound} dispatches")


# ---- leaving -----------------------------------------------------------------------------------------


def test_an_entry_past_its_deadline_is_never_dispatched() -> None:
    line = queue()
    late = offered(line, entry(deadline_s=5.0))
    still = offered(line, entry(deadline_s=6.0))
    assert line.next(5.0) is still
    assert line.expire(5.0) == [late]
    assert late.state == "expired"
    assert line.expire(5.0) == []


def test_a_deadline_that_has_passed_is_refused() -> None:
    refusal = queue().offer(entry(deadline_s=5.0), 5.0)
    assert refusal is not None
    assert refusal.reason == "deadline"


def test_a_cancelled_entry_leaves_no_trace() -> None:
    line = queue()
    first, second = offered(line, entry(deadline_s=9)), offered(line, entry("b"))
    assert line.cancel(first)
    assert not line.cancel(first)
    assert line.waiting == 1
    assert line.next(0) is second
    assert not line.cancel(second)
    assert line.expire(10) == []


def test_many_cancelled_entries_do_not_pile_up() -> None:
    line = queue()
    for _ in range(5000):
        line.cancel(offered(line, entry()))
    assert len(line._deadlines) <= 64


def test_each_tenants_line_is_bounded() -> None:
    line = queue(max_waiting_per_tenant=3)
    for _ in range(3):
        offered(line, entry("a"))
    refusal = line.offer(entry("a"), 0)
    assert refusal is not None
    assert refusal.reason == "tenant_full"
    offered(line, entry("b"))


def test_each_class_is_bounded() -> None:
    line = queue(max_waiting=3)
    for _ in range(3):
        offered(line, entry("a", "batch"))
    refusal = line.offer(entry("a", "batch"), 0)
    assert refusal is not None
    assert refusal.reason == "full"
    # A flood in one class leaves the others' queues alone.
    offered(line, entry("a", "standard"))
    assert line.snapshot(0).waiting == {"interactive": 0, "standard": 1, "batch": 3}


def test_in_a_full_queue_whoever_fills_it_most_makes_room() -> None:
    line = queue(max_waiting=4)
    crowd = [offered(line, entry("flood")) for _ in range(4)]
    mine = [offered(line, entry("calm")), offered(line, entry("calm"))]
    assert line.expire(0) == [crowd[3], crowd[2]]
    assert crowd[3].state == "displaced"
    # Two and two: a third would be more than the other has.
    refusal = line.offer(entry("calm"), 0)
    assert refusal is not None
    assert refusal.reason == "full"
    assert [one.state for one in mine] == ["waiting", "waiting"]


def test_room_in_a_full_queue_is_shared_by_weight() -> None:
    line = queue(max_waiting=4)
    for _ in range(4):
        offered(line, entry("heavy", weight=3.0))
    offered(line, entry("light", weight=1.0))
    refusal = line.offer(entry("light", weight=1.0), 0)
    assert refusal is not None
    assert refusal.reason == "full"


def test_with_no_queue_everything_is_refused() -> None:
    refusal = queue(max_waiting=0).offer(entry(), 0)
    assert refusal is not None
    assert refusal.reason == "full"


OPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("offer"),
            st.sampled_from("abcde"),
            st.sampled_from(PRIORITIES),
            st.one_of(st.just(math.inf), st.floats(0.0, 20.0)),
        ),
        st.tuples(st.just("next")),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("finish"), st.integers(0, 30), st.booleans()),
        st.tuples(st.just("expire")),
        st.tuples(st.just("wait"), st.floats(0.0, 5.0)),
    ),
    max_size=80,
)


@given(ops=OPS)
@settings(unhurried, max_examples=200)
def test_no_entry_is_lost_or_doubled_and_all_bounds_hold(ops: list[tuple[Any, ...]]) -> None:
    line, now = queue(max_waiting=6, max_waiting_per_tenant=3, max_tenants=3), 0.0
    everyone: list[Entry] = []
    left: Counter[int] = Counter()

    def leave(*entries: Entry) -> None:
        left.update(id(one) for one in entries)

    for op, *args in ops:
        if op == "offer":
            tenant, priority, deadline = args
            one = entry(tenant, priority, deadline_s=now + deadline)
            if line.offer(one, now) is None:
                everyone.append(one)
            else:
                assert one.state == "new"
        elif op == "next":
            waited = [one for one in everyone if one.state == "waiting" and one.deadline_s > now]
            one = line.next(now)
            # Work-conserving: whenever someone can go, someone goes.
            assert (one is None) == (not waited)
            if one is not None:
                assert one in waited
                leave(one)
        elif op == "cancel" and args[0] < len(everyone):
            if line.cancel(everyone[args[0]]):
                leave(everyone[args[0]])
        elif op == "finish" and args[0] < len(everyone):
            line.finished(everyone[args[0]], 10 if args[1] else None, 10)
        elif op == "expire":
            leave(*line.expire(now))
        elif op == "wait":
            now += args[0]
        waiting = [one for one in everyone if one.state == "waiting"]
        assert line.waiting == len(waiting)
        for _, count in Counter((one.tenant, one.priority) for one in waiting).items():
            assert count <= 3
        for count in Counter(one.priority for one in waiting).values():
            assert count <= 6

    leave(*line.expire(now))
    while (one := line.next(now)) is not None:
        leave(one)
    leave(*line.expire(math.inf))
    assert left == Counter({id(one): 1 for one in everyone})
    assert line.waiting == 0


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


# ---- slots -------------------------------------------------------------------------------------------


def fill(line: FairQueue, tenant: str, **fields: Any) -> int:
    """Let a tenant take slots until it gets no more."""
    taken = 0
    while line.admit(entry(tenant, **fields)):
        taken += 1
    return taken


def test_a_tenant_that_is_alone_gets_every_slot() -> None:
    line = queue(reserve_share=0.2)
    line.slots = 10
    assert fill(line, "a") == 10
    assert line.open == 10


def test_a_slot_is_held_until_the_request_is_done() -> None:
    line = queue()
    line.slots = 1
    first = entry("a")
    assert line.admit(first)
    offered(line, entry("a"))
    assert line.next(0) is None
    line.finished(first)
    assert line.next(0) is not None
    assert line.open == 1


def test_nobody_overtakes_those_that_wait() -> None:
    line = queue()
    line.slots = 1
    first = entry("a")
    assert line.admit(first)
    waits = offered(line, entry("b"))
    line.finished(first)
    assert not line.admit(entry("a"))
    assert line.next(0) is waits


def test_some_slots_are_kept_from_a_tenant_that_holds_its_share() -> None:
    line = queue(reserve_share=0.2)
    line.slots = 10
    assert line.admit(entry("known before"))
    assert fill(line, "flood") == 7
    flood = [offered(line, entry("flood")) for _ in range(5)]
    assert line.next(0) is None
    # The next of anyone else need not wait, although others do.
    calm = offered(line, entry("calm"))
    assert line.next(0) is calm
    assert line.next(0) is None
    assert {one.state for one in flood} == {"waiting"}


def test_sums_of_weights_that_do_not_come_out_even_are_no_tenants() -> None:
    line = queue(reserve_share=0.2)
    line.slots = 10
    others = [entry("b", weight=0.1), entry("c", weight=0.2)]
    for one in others:
        line.admit(one)
    line.admit(entry("flood", weight=0.3))
    for one in others:
        line.finished(one)
    assert fill(line, "flood", weight=0.3) == 7


def test_the_reserve_is_shared_by_weight() -> None:
    line = queue(reserve_share=0.5)
    line.slots = 16
    assert fill(line, "a", weight=3.0) == 16
    line = queue(reserve_share=0.5)
    line.slots = 16
    line.admit(entry("b", weight=1.0))
    # Three quarters of the slots are its share, beside the other's.
    assert fill(line, "a", weight=3.0) == 12
    # One quarter, of which it had one.
    assert fill(line, "b", weight=1.0) == 3


@given(
    slots=st.integers(1, 12),
    reserve=st.sampled_from([0.0, 0.1, 0.25, 0.5]),
    tenants=st.lists(st.sampled_from("abc"), max_size=60),
    ends=st.lists(st.integers(0, 20), max_size=60),
)
@unhurried
def test_no_slot_outside_the_reserve_is_idle_while_someone_waits(
    slots: int, reserve: float, tenants: list[str], ends: list[int]
) -> None:
    line = queue(reserve_share=reserve)
    line.slots = slots
    everyone = [entry(tenant) for tenant in tenants]
    running: list[Entry] = []
    for step, one in enumerate(everyone):
        if line.admit(one):
            running.append(one)
        else:
            offered(line, one)
        while (granted := line.next(0)) is not None:
            running.append(granted)
        if step < len(ends) and ends[step] < len(running):
            line.finished(running.pop(ends[step]))
            while (granted := line.next(0)) is not None:
                running.append(granted)
        assert line.open == len(running) <= slots
        assert not line.waiting or line.open >= slots - int(slots * reserve)


# ---- a flood -----------------------------------------------------------------------------------------


class Line(Protocol):
    """A queue under test."""

    waiting: int
    slots: int

    def offer(self, entry: Entry, now: float) -> Refusal | None: ...
    def next(self, now: float) -> Entry | None: ...
    def finished(self, entry: Entry, prompt_tokens: int, output_tokens: int) -> None: ...


class FirstInFirstOut:
    """What the fair queue replaces."""

    def __init__(self) -> None:
        self._line: deque[Entry] = deque()
        self.slots, self._open = 0, 0

    @property
    def waiting(self) -> int:
        return len(self._line)

    def offer(self, entry: Entry, now: float) -> Refusal | None:
        if len(self._line) >= 512:
            return Refusal("full", 1.0)
        self._line.append(entry)
        return None

    def next(self, now: float) -> Entry | None:
        if not self._line or self._open >= self.slots:
            return None
        self._open += 1
        return self._line.popleft()

    def finished(self, entry: Entry, prompt_tokens: int, output_tokens: int) -> None:
        self._open -= 1


@dataclass(frozen=True)
class Request:
    tenant: str
    at_s: float
    output_tokens: int
    weight: float = 1.0


SLOTS, PREFILL_S, PER_TOKEN_S = 32, 0.2, 0.01
# 110 tokens on average: 1.3 s of a slot, so the engine does 24 requests per second.
MEAN_S = PREFILL_S + 110 * PER_TOKEN_S


def arrivals(tenant: str, per_s: float, seconds: float, seed: int, **fields: Any) -> list[Request]:
    """A Poisson process of requests with answers of 20 to 200 tokens."""
    source, now, found = random.Random(seed), 0.0, []
    while (now := now + source.expovariate(per_s)) < seconds:
        found.append(Request(tenant, now, source.randint(20, 200), **fields))
    return found


def simulate(line: Line, requests: Sequence[Request]) -> Iterator[tuple[Request, float, float]]:
    """An engine with so many slots, each request in one for the time of its answer.

    Yields each request that was served, with its time to the first token and to the last one, in seconds.
    """
    order = iter(range(10**9))
    events: list[tuple[float, int, Request, Entry | None]] = []
    for request in requests:
        heapq.heappush(events, (request.at_s, next(order), request, None))
    of_entry: dict[int, Request] = {}
    line.slots = SLOTS
    while events:
        now, _, request, done = heapq.heappop(events)
        if done is None:
            # Everyone says max_tokens 1000, as clients do.
            one = Entry(request.tenant, "standard", request.weight, 50, 1000)
            if line.offer(one, now) is None:
                of_entry[id(one)] = request
                # Kept alive by the queue, so that its id stays its own.
        else:
            line.finished(done, 50, request.output_tokens)
        while (one := line.next(now)) is not None:
            request = of_entry.pop(id(one))
            lasts_s = PREFILL_S + request.output_tokens * PER_TOKEN_S
            heapq.heappush(events, (now + lasts_s, next(order), request, one))
            waited_s = now - request.at_s
            yield request, waited_s + PREFILL_S, waited_s + lasts_s


def p99(values: Sequence[float]) -> float:
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


def times_of(tenant: str, line: Line, requests: Sequence[Request]) -> tuple[float, float]:
    """p99 of the time to the first token and to the last, of one tenant."""
    served = [one for one in simulate(line, requests) if one[0].tenant == tenant]
    return p99([first for _, first, _ in served]), p99([last for _, _, last in served])


A_PER_S = 6.0
ALONE = arrivals("a", A_PER_S, 200, seed=1)
FLOODED = ALONE + arrivals("b", 10 * A_PER_S, 200, seed=2)


def flood_ratio(make: Callable[[], Line]) -> tuple[float, float]:
    """By how much B's flood of ten times A's load stretches A's p99 to the first and to the last token."""
    alone, flooded = times_of("a", make(), ALONE), times_of("a", make(), FLOODED)
    return flooded[0] / alone[0], flooded[1] / alone[1]


def test_the_flood_is_one() -> None:
    assert A_PER_S * MEAN_S < SLOTS / 2 < SLOTS < 10 * A_PER_S * MEAN_S


def test_a_flood_of_ten_times_the_load_costs_another_tenant_little() -> None:
    """The bar: the other's p99 stays within 1.5 times its value alone."""
    first, last = flood_ratio(queue)
    assert first <= 1.5, first
    assert last <= 1.5, last


def test_without_fairness_the_flood_would_drown_the_other() -> None:
    first, last = flood_ratio(FirstInFirstOut)
    assert first > 1.5, first
    assert last > 1.5, last


def test_without_the_reserve_others_wait_for_an_answer_to_end() -> None:
    first, last = flood_ratio(lambda: queue(reserve_share=0.0))
    assert first > 1.5, first
    assert last <= 1.5, last


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_floods_get_no_more_than_their_weight(weight: float) -> None:
    requests = arrivals("a", 60, 100, seed=3, weight=weight) + arrivals("b", 60, 100, seed=4)
    tokens: Counter[str] = Counter()
    for request, first_s, _ in simulate(queue(), requests):
        # From when the queue is full until the arrivals end.
        if 20 < request.at_s + first_s < 100:
            tokens[request.tenant] += 50 + 2 * request.output_tokens
    assert tokens["a"] / tokens["b"] == pytest.approx(weight, rel=0.05)
