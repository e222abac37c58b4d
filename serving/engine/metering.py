"""The meter of a replica: the cost of each request, as its engine counts, and its bills.

Pure but for the clocks that are passed in. Engine requests are counted where vLLM counts them
(serving/engine/metered_engine.py), so that all bills together are the engine's own counters.

One client's request may be several engine requests (`n`, a list of inputs) or none (refused). Its account is
settled when the app is done with it and the engine with all of them; tokens counted later, for whatever
reason, are settled once more: another bill with the same request id.

A bill is kept until a gateway has acknowledged it. The gateway that sent the request has the first right to
it; `LEASE_S` later any gateway has, and sooner when the replica is about to end.
"""

from __future__ import annotations

import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

from serving.replica_protocol import MAX_COLLECTED, Bill, Usage

Outcome = Literal["ok", "failed", "aborted"]

# How long a bill is one gateway's: it collects every second, so after so long it has gone, or hangs.
LEASE_S = 10.0
# A replica that is about to end has no time for that.
LAST_LEASE_S = 1.5
# What an answer said by itself is said again to its gateway, if that has not acknowledged it by then.
REPEAT_S = 3.0
# About 20 MiB. The oldest are dropped, and counted.
MAX_BILLS = 50_000
# Without a gateway that has shown itself lately, nobody will collect.
GATEWAY_MEMORY_S = 60.0
MAX_GATEWAYS = 1024
_NOTHING = Usage(0, 0, 0)


@dataclass(eq=False, slots=True)
class Account:
    """One request of a client while it is open; the engine's requests for it count here."""

    request_id: str = ""
    key: str = ""
    gateway: str = ""
    path: str = ""
    adapter: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    distinct_prompt_tokens: int = 0
    sequences: int = 0
    open_sequences: int = 0
    is_over: bool = False
    outcome: Outcome = "ok"
    billed: Usage = _NOTHING

    @property
    def unbilled(self) -> Usage:
        """The usage that is on no bill yet."""
        billed = self.billed
        return Usage(
            self.prompt_tokens - billed.prompt_tokens,
            self.cached_tokens - billed.cached_tokens,
            self.output_tokens - billed.output_tokens,
            self.reasoning_tokens - billed.reasoning_tokens,
            self.distinct_prompt_tokens - billed.distinct_prompt_tokens,
            self.sequences - billed.sequences,
        )


# The account of the request that the current task, or the one that made it, works for.
CURRENT: ContextVar[Account | None] = ContextVar("comptoir_account", default=None)


@dataclass(eq=False, slots=True)
class _Kept:
    bill: Bill
    gateway: str
    leased_s: float


@dataclass(eq=False, slots=True)
class _Desk:
    """The bills of one gateway: those it has not heard of, and since when it was told of the others."""

    seen_s: float
    unheard: dict[str, None] = field(default_factory=dict)
    told: OrderedDict[str, float] = field(default_factory=OrderedDict)


class Meter:
    """Every open account and every kept bill of one replica.

    Args:
        model: the model's id.
        is_prefill: the replica computes prompts for others.
        clock: Unix time, for bills.
        monotonic: seconds that never go back, for leases.
    """

    def __init__(
        self,
        model: str,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        max_bills: int = MAX_BILLS,
        *,
        is_prefill: bool = False,
    ) -> None:
        self._model = model
        self._is_prefill = is_prefill
        self._clock = clock
        self._monotonic = monotonic
        self._max_bills = max_bills
        self._epoch = secrets.token_hex(8)
        self._sequence = 0
        # By the engine's request id.
        self._engine: dict[str, Account] = {}
        # By their lease, the oldest first.
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._desks: dict[str, _Desk] = {}
        self._lease_s = LEASE_S
        self.dropped = 0
        # What the engine did for nobody's request.
        self.unattributed = Account()

    # ---- a client's request ------------------------------------------------------------------------------

    def open(self, request_id: str, payer: str, path: str) -> Account:
        """Open the account of a request. `payer`: the value of `PAYER_HEADER`."""
        gateway, _, key = payer.partition(" ")
        if gateway:
            self._desk(gateway)
        return Account(request_id, key, gateway, path)

    def tell(self, account: Account) -> Usage | None:
        """The cost of the request, for its answer; None while the engine is not done with it."""
        if account.open_sequences or not account.sequences:
            return None
        return self._settle(account, is_told=True)

    def over(self, account: Account, outcome: Outcome) -> None:
        """Note that the app is done with the request."""
        account.is_over, account.outcome = True, outcome
        if not account.open_sequences:
            self._settle(account)

    # ---- an engine's request -----------------------------------------------------------------------------

    def began(self, engine_id: str, adapter: str = "") -> None:
        """Note that the engine gets a request; the current context says whose."""
        account = CURRENT.get() or self.unattributed
        account.sequences += 1
        account.open_sequences += 1
        if adapter:
            account.adapter = adapter
        self._engine[engine_id] = account

    def read(self, engine_id: str, prompt: int, cached: int, *, is_first: bool) -> None:
        """Count a prompt that the engine has read. `is_first`: the first of the sequences made from it."""
        account = self._engine.get(engine_id) or self.unattributed
        account.prompt_tokens += prompt
        account.cached_tokens += cached
        if is_first:
            account.distinct_prompt_tokens += prompt

    def wrote(self, engine_id: str, tokens: int) -> None:
        """Count tokens that the engine has generated."""
        account = self._engine.get(engine_id) or self.unattributed
        account.output_tokens += tokens

    def ended(self, engine_id: str) -> None:
        """Note that the engine is done with a request, or counts no more for it; may be called repeatedly."""
        account = self._engine.pop(engine_id, None)
        if account is None:
            return
        account.open_sequences -= 1
        if account.is_over and not account.open_sequences:
            self._settle(account)

    def broke(self) -> None:
        """Note that the engine has failed and ends no request any more."""
        for engine_id in list(self._engine):
            self.ended(engine_id)

    # ---- bills -------------------------------------------------------------------------------------------

    def collect(self, gateway: str, acknowledged: Iterable[str] = ()) -> list[Bill]:
        """Bills for a gateway, which it must acknowledge: its own first, then unclaimed ones."""
        desk, now = self._desk(gateway), self._monotonic()
        for bill_id in acknowledged:
            self._forget(bill_id)
        told = islice(desk.told.items(), MAX_COLLECTED)
        # A dictionary keeps the order and each of them once.
        ids = dict.fromkeys(one for one, at_s in told if now - at_s >= REPEAT_S)
        ids |= dict.fromkeys(islice(desk.unheard, MAX_COLLECTED))
        ids |= dict.fromkeys(self._unclaimed(now))
        chosen = list(islice(ids, MAX_COLLECTED))
        return [self._lease(bill_id, gateway, desk, now) for bill_id in chosen]

    def end_soon(self) -> None:
        """Let any gateway have any bill: the replica is about to stop."""
        self._lease_s = LAST_LEASE_S

    @property
    def is_awaited(self) -> bool:
        """Whether there are bills, and a gateway that may collect them."""
        return bool(self._kept) and self._has_gateways

    def stats(self) -> dict[str, float]:
        """Figures for the replica's report."""
        return {
            "kept_bills": float(len(self._kept)),
            "unclaimed_bills": float(len(self._unclaimed(self._monotonic()))),
            "dropped_bills": float(self.dropped),
            "unattributed_prompt_tokens": float(self.unattributed.prompt_tokens),
            "unattributed_output_tokens": float(self.unattributed.output_tokens),
        }

    @property
    def _has_gateways(self) -> bool:
        since_s = self._monotonic() - GATEWAY_MEMORY_S
        return any(desk.seen_s > since_s for desk in self._desks.values())

    def _unclaimed(self, now: float) -> list[str]:
        """Bills that any gateway may have; no more than fit into one collection."""
        found: list[str] = []
        for bill_id, kept in self._kept.items():
            if len(found) >= MAX_COLLECTED or now - kept.leased_s < self._lease_s:
                break
            found.append(bill_id)
        return found

    def _settle(self, account: Account, *, is_told: bool = False) -> Usage | None:
        usage = account.unbilled
        if usage == _NOTHING:
            return None
        self._sequence += 1
        bill_id = f"{self._epoch}-{self._sequence}"
        account.billed = usage if account.billed is _NOTHING else account.billed + usage
        bill = Bill(
            bill_id,
            account.request_id,
            account.key,
            self._model,
            account.adapter,
            account.path,
            self._is_prefill,
            account.outcome,
            round(self._clock(), 3),
            usage,
        )
        now, gateway = self._monotonic(), account.gateway
        # Of nobody's gateway: anyone may have it at once.
        self._kept[bill_id] = _Kept(bill, gateway, now)
        if not gateway:
            self._kept[bill_id].leased_s = -math.inf
            self._kept.move_to_end(bill_id, last=False)
        elif is_told:
            self._desk(gateway).told[bill_id] = now
        else:
            self._desk(gateway).unheard[bill_id] = None
        while len(self._kept) > self._max_bills:
            self._forget(next(iter(self._kept)))
            self.dropped += 1
        return replace(usage, bill=bill_id)

    def _lease(self, bill_id: str, gateway: str, desk: _Desk, now: float) -> Bill:
        kept = self._kept[bill_id]
        before = self._desks.get(kept.gateway)
        if before is not None:
            before.unheard.pop(bill_id, None)
            before.told.pop(bill_id, None)
        kept.gateway, kept.leased_s = gateway, now
        # If its acknowledgement, or this answer, gets lost, it is said again.
        desk.told[bill_id] = now
        self._kept.move_to_end(bill_id)
        return kept.bill

    def _forget(self, bill_id: str) -> None:
        kept = self._kept.pop(bill_id, None)
        desk = self._desks.get(kept.gateway) if kept is not None else None
        if desk is not None:
            desk.unheard.pop(bill_id, None)
            desk.told.pop(bill_id, None)

    def _desk(self, gateway: str) -> _Desk:
        now = self._monotonic()
        desk = self._desks.get(gateway)
        if desk is None:
            if len(self._desks) >= MAX_GATEWAYS:
                # Gateways come and go; what they had not collected is found by its lease.
                del self._desks[min(self._desks, key=lambda one: self._desks[one].seen_s)]
            desk = self._desks[gateway] = _Desk(now)
        desk.seen_s = now
        return desk
