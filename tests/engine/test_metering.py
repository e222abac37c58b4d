"""The meter: every token on exactly one bill, and every bill kept until somebody has acknowledged it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engine import metering
from serving.engine.metering import CURRENT, Account, Meter
from serving.replica_protocol import MAX_COLLECTED, Bill, Usage

PATH = "/v1/x"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def meter(clock: Clock) -> Meter:
    return Meter("m", clock=lambda: 5.0, monotonic=clock)


def work(meter: Meter, account: Account, engine_id: str, prompt: int, output: int) -> None:
    """One request of the engine, from its beginning to its end."""
    begin(meter, account, engine_id)
    meter.read(engine_id, prompt, prompt // 2, is_first=True)
    meter.wrote(engine_id, output)
    meter.ended(engine_id)


def begin(meter: Meter, account: Account, engine_id: str, adapter: str = "") -> None:
    token = CURRENT.set(account)
    try:
        meter.began(engine_id, adapter)
    finally:
        CURRENT.reset(token)


def done(meter: Meter, request_id: str = "r", gateway: str = "g", output: int = 3) -> None:
    """A request that could not say what it cost."""
    account = meter.open(request_id, f"{gateway} key" if gateway else "", PATH)
    work(meter, account, request_id, 10, output)
    meter.over(account, "aborted")


def test_a_request_is_billed_when_app_and_engine_are_done(meter: Meter) -> None:
    account = meter.open("r", "g key", PATH)
    begin(meter, account, "e", adapter="tuned")
    meter.read("e", 10, 4, is_first=True)
    meter.wrote("e", 1)
    meter.over(account, "aborted")
    assert meter.collect("g") == []
    meter.wrote("e", 2)
    meter.ended("e")
    (bill,) = meter.collect("g")
    usage = Usage(10, 4, 3, 0, 10, 1)
    assert bill == Bill(bill.id, "r", "key", "m", "tuned", PATH, False, "aborted", 5.0, usage)


def test_several_sequences_of_one_prompt_count_as_the_engine_counts_them(meter: Meter) -> None:
    account = meter.open("r", "g -", PATH)
    for at in range(2):
        begin(meter, account, f"{at}_e")
        meter.read(f"{at}_e", 10, 8 * at, is_first=at == 0)
        meter.wrote(f"{at}_e", 5)
        assert meter.tell(account) is None, "the engine is not done"
        meter.ended(f"{at}_e")
    usage = meter.tell(account)
    assert usage is not None
    assert usage == Usage(20, 8, 10, 0, 10, 2, usage.bill)


def test_what_was_said_with_the_answer_is_not_billed_again(meter: Meter) -> None:
    account = meter.open("r", "g key", PATH)
    work(meter, account, "e", 10, 3)
    told = meter.tell(account)
    assert told is not None
    meter.over(account, "ok")
    assert meter.collect("g", [told.bill]) == []
    assert meter.stats()["kept_bills"] == 0


def test_what_the_engine_does_after_its_bill_is_on_another(meter: Meter) -> None:
    account = meter.open("r", "g key", PATH)
    work(meter, account, "e", 10, 3)
    told = meter.tell(account)
    work(meter, account, "late", 7, 2)
    meter.over(account, "ok")
    (bill,) = meter.collect("g")
    assert told is not None
    assert bill.id != told.bill
    assert (bill.request_id, bill.usage) == ("r", Usage(7, 3, 2, 0, 7, 1))


def test_a_request_that_reached_no_engine_has_no_bill(meter: Meter) -> None:
    account = meter.open("r", "g key", PATH)
    assert meter.tell(account) is None
    meter.over(account, "failed")
    assert meter.collect("g") == []


def test_one_that_the_engine_never_began_costs_nothing_and_its_bill_says_so(meter: Meter) -> None:
    account = meter.open("r", "g key", PATH)
    begin(meter, account, "e")
    meter.ended("e")
    meter.over(account, "aborted")
    assert [bill.usage for bill in meter.collect("g")] == [Usage(0, 0, 0, 0, 0, 1)]


def test_what_is_counted_after_an_abort_is_on_nobodys_bill(meter: Meter) -> None:
    done(meter)
    meter.wrote("r", 5)
    meter.ended("r")
    assert meter.collect("g")[0].usage.output_tokens == 3
    assert meter.collect("g") == []
    assert meter.stats()["unattributed_output_tokens"] == 5


def test_work_for_no_request_is_counted_apart(meter: Meter) -> None:
    meter.began("warm-up")
    meter.read("warm-up", 4, 0, is_first=True)
    meter.wrote("warm-up", 1)
    meter.ended("warm-up")
    assert meter.collect("g") == []
    stats = meter.stats()
    assert (stats["unattributed_prompt_tokens"], stats["unattributed_output_tokens"]) == (4, 1)


def test_a_dead_engine_ends_what_it_had(meter: Meter) -> None:
    account = meter.open("r", "g key", PATH)
    begin(meter, account, "e")
    meter.wrote("e", 2)
    meter.over(account, "failed")
    meter.broke()
    assert [bill.usage.output_tokens for bill in meter.collect("g")] == [2]


# ---- who gets a bill -------------------------------------------------------------------------------------


def test_a_bill_is_its_own_gateways_first_and_anybodys_after_the_lease(
    meter: Meter, clock: Clock
) -> None:
    done(meter)
    assert meter.collect("other") == []
    clock.now += metering.LEASE_S
    assert meter.stats()["unclaimed_bills"] == 1
    (bill,) = meter.collect("other")
    assert meter.stats()["unclaimed_bills"] == 0
    assert meter.collect("g") == [], "it is the other's now"
    assert meter.collect("other", [bill.id]) == []
    assert meter.stats()["kept_bills"] == 0


def test_a_request_of_no_gateway_is_anybodys_at_once(meter: Meter) -> None:
    done(meter, gateway="")
    assert meter.stats()["unclaimed_bills"] == 1
    assert len(meter.collect("g")) == 1


def test_what_is_not_acknowledged_is_said_again(meter: Meter, clock: Clock) -> None:
    done(meter)
    account = meter.open("told", "g key", PATH)
    work(meter, account, "e", 10, 3)
    told = meter.tell(account)
    assert told is not None
    (first,) = meter.collect("g")
    assert meter.collect("g") == []
    clock.now += metering.REPEAT_S
    assert {bill.id for bill in meter.collect("g")} == {first.id, told.bill}


def test_a_replica_that_ends_soon_waits_for_no_lease(meter: Meter, clock: Clock) -> None:
    done(meter)
    meter.end_soon()
    assert meter.is_awaited
    clock.now += metering.LAST_LEASE_S
    (bill,) = meter.collect("other")
    meter.collect("other", [bill.id])
    assert not meter.is_awaited


def test_nobody_is_awaited_where_no_gateway_has_been(meter: Meter, clock: Clock) -> None:
    done(meter, gateway="")
    assert not meter.is_awaited
    done(meter, "again")
    assert meter.is_awaited
    clock.now += metering.GATEWAY_MEMORY_S
    assert not meter.is_awaited


def test_bills_and_gateways_are_bounded_and_the_oldest_bills_go(clock: Clock) -> None:
    meter = Meter("m", monotonic=clock, max_bills=3)
    for number in range(metering.MAX_GATEWAYS + 5):
        done(meter, f"r{number}", gateway=f"g{number}")
        clock.now += 1
    stats = meter.stats()
    assert (stats["kept_bills"], stats["dropped_bills"]) == (3, metering.MAX_GATEWAYS + 2)
    assert len(meter._desks) <= metering.MAX_GATEWAYS
    clock.now += metering.LEASE_S
    kept = {bill.request_id for bill in meter.collect("g")}
    assert kept == {f"r{metering.MAX_GATEWAYS + at}" for at in (2, 3, 4)}


def test_one_collection_is_bounded(meter: Meter) -> None:
    for number in range(MAX_COLLECTED + 1):
        done(meter, f"r{number}")
    assert len(meter.collect("g")) == MAX_COLLECTED
    assert len(meter.collect("g")) == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["open", "begin", "read", "write", "end", "tell", "over", "collect", "wait"]
        ),
        st.integers(0, 5),
        st.integers(0, 3),
    ),
    max_size=60,
)


@given(STEPS)
def test_all_bills_together_are_what_the_engine_counted(steps: list[tuple[str, int, int]]) -> None:
    """Whatever happens in which order: no token is lost, none is on two bills."""
    clock = Clock()
    meter = Meter("m", monotonic=clock)
    accounts: dict[int, Account] = {}
    counted: Counter[str] = Counter()
    bills: dict[str, Bill] = {}
    unacknowledged: list[str] = []

    def collect(gateway: str) -> None:
        found = meter.collect(gateway, unacknowledged)
        unacknowledged[:] = [bill.id for bill in found]
        bills.update({bill.id: bill for bill in found})

    def begin_once(who: int, engine_id: str) -> None:
        if who in accounts and engine_id not in meter._engine:
            begin(meter, accounts[who], engine_id)

    actions: dict[str, Any] = {
        "open": lambda who, n: accounts.setdefault(who, meter.open(str(who), f"g{n} k", PATH)),
        "begin": lambda who, n: begin_once(who, f"{who}.{n}"),
        "tell": lambda who, n: who in accounts and meter.tell(accounts[who]),
        "over": lambda who, n: who in accounts and meter.over(accounts.pop(who), "ok"),
        "end": lambda who, n: meter.ended(f"{who}.{n}"),
        "collect": lambda who, n: collect(f"g{n}"),
    }
    for action, who, number in steps:
        engine_id = f"{who}.{number}"
        if action == "read":
            meter.read(engine_id, who, 0, is_first=True)
            counted["prompt"] += who
        elif action == "write":
            meter.wrote(engine_id, who)
            counted["output"] += who
        elif action == "wait":
            clock.now += 4 * number
        else:
            actions[action](who, number)
    for account in accounts.values():
        meter.over(account, "aborted")
    meter.broke()
    clock.now += metering.LEASE_S
    collect("last")
    billed = sum((bill.usage for bill in bills.values()), Usage(0, 0, 0))
    apart = meter.unattributed
    assert billed.prompt_tokens + apart.prompt_tokens == counted["prompt"]
    assert billed.output_tokens + apart.output_tokens == counted["output"]
    collect("last")
    assert meter.stats()["kept_bills"] == 0
