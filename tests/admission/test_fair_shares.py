"""Shares: what each tenant used, by weight, and who is remembered."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.admission.fair_queue import FairQueue
from serving.admission.fair_shares import Entry
from tests.admission.fair import entry, offered, queue, serve, unhurried


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
