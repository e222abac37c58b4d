"""The costs of this gateway's requests: bills counted once, charges corrected, acknowledgements due.

Bookkeeping only; serving/gateway/collector.py asks replicas and writes.
"""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from serving.discovery.directory import Replica
from serving.replica_protocol import MAX_ACKNOWLEDGED, Bill, Usage
from serving.telemetry.metrics import GatewayMetrics
from serving.tenancy.bills import BilledTo
from serving.tenancy.keys import ANONYMOUS, NOBODY

# For so long after a request's end its replica is asked: it says again what got lost on its way (`REPEAT_S`).
LINGER_S = 5.0
# So long a charge waits for the bill that puts it right.
OWED_S = 60.0
MAX_OWED = 10_000
# More than a sink takes in is not acknowledged: the replicas keep it.
MAX_UNRECORDED = 100_000
_NOTHING = Usage(0, 0, 0)
_ANONYMOUS = {ANONYMOUS.id: ANONYMOUS.name}


class Charge(Protocol):
    """The estimated charge of a request."""

    def correct(self, usage: Usage) -> None:
        """Charge this usage instead; may be called repeatedly."""


class OpenCharge(Charge, Protocol):
    """The charge of an open request; `usage` once its cost is known."""

    usage: Usage | None

    def release(self) -> None:
        """Note that the request is over."""


@dataclass(eq=False, slots=True)
class Desk:
    """One replica's bills here.

    `counted`: ids that it does not know to be counted. `recorded`: those of them that it may be told of.
    """

    replica: Replica
    touched_s: float
    counted: set[str] = field(default_factory=set)
    recorded: dict[str, None] = field(default_factory=dict)
    failures: int = 0
    is_leaving: bool = False


@dataclass(eq=False, slots=True)
class _Owed:
    charge: Charge
    since_s: float
    usage: Usage = _NOTHING


class Bills:
    """Every bill that this gateway has heard of and not settled with its replica.

    Args:
        names: of keys, by what stands for them in bills (`KeyRing.names`).
    """

    def __init__(
        self,
        metrics: GatewayMetrics,
        names: Mapping[str, str] = _ANONYMOUS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.gateway = uuid.uuid4().hex[:12]
        self._metrics = metrics
        # Those of former keys stay: what they still cost is theirs.
        self._names = dict(names)
        self._clock = clock
        self._owed: OrderedDict[str, _Owed] = OrderedDict()
        self.desks: dict[str, Desk] = {}
        self.unrecorded: dict[str, tuple[Desk, BilledTo]] = {}

    def learn(self, names: Mapping[str, str]) -> None:
        """Take over other keys."""
        self._names |= names

    # ---- requests ----------------------------------------------------------------------------------------

    def payer(self, key: str) -> str:
        """The payer, as a replica is told (`PAYER_HEADER`)."""
        return f"{self.gateway} {key}"

    def touched(self, replica: Replica) -> None:
        """Note that a request to this replica has ended, in any way: it may have a bill."""
        self._desk(replica).touched_s = self._clock()

    def told(self, replica: Replica, bill: Bill, tenant: str) -> None:
        """Take over the cost that a replica sent with its answer."""
        if bill.id:
            self._take(self._desk(replica), bill, tenant)
        else:
            self._count(bill, tenant)

    def release(self, charge: OpenCharge, request_id: str) -> None:
        """End a request: its cost is known, or its bill will tell."""
        charge.release()
        if charge.usage is None:
            self.owed(request_id, charge)

    def owed(self, request_id: str, charge: Charge) -> None:
        """End a request of unknown cost: its bill will tell."""
        now = self._clock()
        while self._owed:
            oldest = next(iter(self._owed.values()))
            if len(self._owed) < MAX_OWED and now - oldest.since_s < OWED_S:
                break
            self._owed.popitem(last=False)
        self._owed[request_id] = _Owed(charge, now)

    # ---- what replicas kept ------------------------------------------------------------------------------

    def collected(self, desk: Desk, acknowledged: Iterable[str], bills: Iterable[Bill]) -> None:
        """Take over bills collected from a replica, and the ids that it keeps."""
        desk.failures = 0
        for bill_id in acknowledged:
            desk.recorded.pop(bill_id, None)
            desk.counted.discard(bill_id)
        for bill in bills:
            if bill.id in desk.counted:
                continue
            self._take(desk, bill, self._names.get(bill.key, NOBODY))
            owed = None if bill.is_prefill else self._owed.get(bill.request_id)
            if owed is not None:
                # A request may have cost several replicas something.
                owed.usage += bill.usage
                owed.charge.correct(owed.usage)

    def recorded(self, bill_ids: Iterable[str]) -> None:
        """Note recorded bills: their replicas may forget them."""
        for bill_id in bill_ids:
            desk, _ = self.unrecorded.pop(bill_id)
            desk.recorded[bill_id] = None

    def to_acknowledge(self, desk: Desk) -> tuple[str, ...]:
        """The bills that can be acknowledged to a replica in one call."""
        return tuple(islice(desk.recorded, MAX_ACKNOWLEDGED))

    def due(self) -> list[Desk]:
        """The replicas to ask now because of this gateway's own requests."""
        since_s = self._clock() - LINGER_S
        return [
            desk
            for desk in self.desks.values()
            if desk.recorded or desk.touched_s >= since_s or desk.is_leaving
        ]

    def open_desk(self, replica: Replica) -> Desk:
        """The replica's desk, created if missing."""
        return self.desks.get(replica.id) or self._desk(replica, touched_s=float("-inf"))

    def forget(self, replica_id: str) -> None:
        """Forget a replica that is gone; its bills stay counted and are recorded."""
        self.desks.pop(replica_id, None)

    # ---- inside ------------------------------------------------------------------------------------------

    def _desk(self, replica: Replica, touched_s: float | None = None) -> Desk:
        desk = self.desks.get(replica.id)
        if desk is None:
            since_s = self._clock() if touched_s is None else touched_s
            desk = self.desks[replica.id] = Desk(replica, since_s)
        return desk

    def _take(self, desk: Desk, bill: Bill, tenant: str) -> None:
        if bill.id in desk.counted or len(self.unrecorded) >= MAX_UNRECORDED:
            return
        desk.counted.add(bill.id)
        self.unrecorded[bill.id] = (desk, BilledTo(bill, tenant))
        self._count(bill, tenant)

    def _count(self, bill: Bill, tenant: str) -> None:
        usage, metrics = bill.usage, self._metrics
        counts = (
            ("prompt", usage.prompt_tokens),
            ("cached", usage.cached_tokens),
            ("output", usage.output_tokens),
            ("reasoning", usage.reasoning_tokens),
        )
        if bill.is_prefill:
            # The replica that answers bills the same prompt.
            for kind, tokens in counts:
                metrics.prefill_tokens.labels(bill.model, kind).inc(tokens)
            return
        of_tenant, of_model = metrics.tenant(tenant), metrics.model_tokens(bill.model)
        for kind, tokens in counts:
            if tokens:
                of_model[kind].inc(tokens)
                of_tenant[kind].inc(tokens)
