"""Bills are counted once, whichever way they come, and acknowledged when they are recorded."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from serving.discovery.directory import Replica
from serving.gateway import bills as module
from serving.gateway.bills import Bills
from serving.replica_protocol import Bill, Usage
from serving.telemetry.metrics import GatewayMetrics
from serving.tenancy.keys import NOBODY

REPLICA = Replica("r", "http://r:80", "t")
NAMES = {"k1": "acme"}


def bill(number: int = 1, request_id: str = "q", key: str = "k1", **fields: object) -> Bill:
    usage = Usage(100, 40, 10, 4, 100, 1)
    one = Bill(f"{'a' * 16}-{number}", request_id, key, "m", "", "/x", False, "ok", 5.0, usage)
    return replace(one, **fields)  # type: ignore[arg-type]


@dataclass
class Charge:
    seen: list[Usage] = field(default_factory=list)

    def correct(self, usage: Usage) -> None:
        self.seen.append(usage)


class Site:
    def __init__(self) -> None:
        self.now = 100.0
        self.metrics = GatewayMetrics()
        self.bills = Bills(self.metrics, NAMES, clock=lambda: self.now)

    def tokens(self, tenant: str, kind: str = "output") -> float:
        name = "comptoir_tenant_tokens_total"
        labels = {"tenant": tenant, "kind": kind}
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def record_all(self) -> None:
        self.bills.recorded(list(self.bills.unrecorded))


@pytest.fixture
def site() -> Site:
    return Site()


def test_a_replica_is_told_who_pays_and_never_the_key(site: Site) -> None:
    assert site.bills.payer("k1") == f"{site.bills.gateway} k1"
    assert Site().bills.gateway != site.bills.gateway


def test_a_bill_counts_for_its_model_and_its_tenant(site: Site) -> None:
    site.bills.told(REPLICA, bill(), "acme")
    kinds = {
        kind: site.tokens("acme", kind) for kind in ("prompt", "cached", "output", "reasoning")
    }
    assert kinds == {"prompt": 100, "cached": 40, "output": 10, "reasoning": 4}
    labels = {"model": "m", "kind": "prompt"}
    assert site.metrics.registry.get_sample_value("comptoir_tokens_total", labels) == 100


def test_a_bill_that_comes_both_ways_counts_once(site: Site) -> None:
    site.bills.told(REPLICA, bill(), "acme")
    desk = site.bills.open_desk(REPLICA)
    site.bills.collected(desk, (), [bill(), bill(2)])
    site.bills.collected(desk, (), [bill(2)])
    assert site.tokens("acme") == 20
    assert len(site.bills.unrecorded) == 2


def test_only_what_is_recorded_is_acknowledged_and_then_forgotten(site: Site) -> None:
    site.bills.told(REPLICA, bill(), "acme")
    (desk,) = site.bills.due()
    assert site.bills.to_acknowledge(desk) == ()
    site.record_all()
    ids = site.bills.to_acknowledge(desk)
    assert ids == (bill().id,)
    site.bills.collected(desk, ids, [])
    assert site.bills.to_acknowledge(desk) == ()
    assert not desk.counted


def test_a_bill_of_a_key_that_is_unknown_counts_for_nobody_by_name(site: Site) -> None:
    site.bills.collected(site.bills.open_desk(REPLICA), (), [bill(key="old")])
    assert site.tokens(NOBODY) == 10


def test_what_a_revoked_key_still_costs_is_its_own(site: Site) -> None:
    site.bills.learn({"k2": "new"})
    desk = site.bills.open_desk(REPLICA)
    site.bills.collected(desk, (), [bill(), bill(2, key="k2")])
    assert site.tokens("acme") == site.tokens("new") == 10


def test_what_a_prefill_replica_computed_is_counted_apart(site: Site) -> None:
    charge = Charge()
    site.bills.owed("q", charge)
    site.bills.collected(site.bills.open_desk(REPLICA), (), [bill(is_prefill=True)])
    assert site.tokens("acme") == 0
    labels = {"model": "m", "kind": "prompt"}
    assert site.metrics.registry.get_sample_value("comptoir_prefill_tokens_total", labels) == 100
    assert charge.seen == []
    assert len(site.bills.unrecorded) == 1


def test_a_late_bill_puts_the_charge_right(site: Site) -> None:
    charge = Charge()
    site.bills.owed("q", charge)
    desk = site.bills.open_desk(REPLICA)
    site.bills.collected(desk, (), [bill()])
    site.bills.collected(desk, (), [bill(2), bill(3, "another's")])
    assert [usage.output_tokens for usage in charge.seen] == [10, 20]


def test_charges_wait_for_a_bounded_time_and_in_bounded_number(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_OWED", 2)
    charges = [Charge() for _ in range(3)]
    for number, charge in enumerate(charges):
        site.bills.owed(f"q{number}", charge)
    desk = site.bills.open_desk(REPLICA)
    site.bills.collected(desk, (), [bill(at, f"q{at}") for at in range(3)])
    assert [len(charge.seen) for charge in charges] == [0, 1, 1]
    site.now += module.OWED_S
    site.bills.owed("new", Charge())
    site.bills.collected(desk, (), [bill(9, "q2")])
    assert len(charges[2].seen) == 1


def test_a_replica_is_asked_for_a_while_after_each_request(site: Site) -> None:
    site.bills.touched(REPLICA)
    assert [desk.replica for desk in site.bills.due()] == [REPLICA]
    site.now += module.LINGER_S + 0.1
    assert site.bills.due() == []
    site.bills.told(REPLICA, bill(), "acme")
    site.record_all()
    site.now += module.LINGER_S + 0.1
    assert len(site.bills.due()) == 1, "it does not know that its bill was recorded"


def test_what_cannot_be_recorded_is_left_with_its_replica(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNRECORDED", 1)
    site.bills.told(REPLICA, bill(1), "acme")
    site.bills.told(REPLICA, bill(2), "acme")
    assert site.tokens("acme") == 10
    site.record_all()
    site.bills.collected(site.bills.open_desk(REPLICA), (), [bill(2)])
    assert site.tokens("acme") == 20


def test_usage_without_a_bill_counts_and_is_not_kept(site: Site) -> None:
    site.bills.told(REPLICA, bill(id=""), "acme")
    assert site.tokens("acme") == 10
    assert not site.bills.unrecorded
