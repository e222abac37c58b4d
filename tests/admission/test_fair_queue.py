"""The fair queue: who goes next, who has to leave, who gets a slot."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serving.admission.fair_queue import FairQueue
from serving.admission.fair_shares import Entry
from serving.config.admission import PRIORITIES, Priority
from tests.admission.fair import entry, offered, queue, serve, unhurried

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


@pytest.mark.parametrize("later", [1000.0, 0.001])
def test_a_weight_that_changes_while_requests_are_open_changes_nobodys_reserve(
    later: float,
) -> None:
    line = queue(reserve_share=0.5)
    line.slots = 10
    first, other = entry("a", weight=1.0), entry("b", weight=2.0)
    assert line.admit(first)
    assert line.admit(other)
    again = entry("a", weight=later)
    assert line.admit(again)
    assert line._open_weight == pytest.approx(later + 2)
    line.finished(first)
    line.finished(again)
    assert line._open_weight == pytest.approx(2)
