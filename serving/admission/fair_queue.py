"""The queue of a busy model, and who goes next: priority classes, fair shares of tokens, deadlines. Pure.

Classes: a higher one goes first, but a lower one that waits is passed over at most `aging_dispatches - 1`
times in a row (once more for each other class that is due as well).

Inside a class: the Virtual Token Counter of "Fairness in Serving Large Language Models" (Sheng et al.,
OSDI 2024, https://www.usenix.org/conference/osdi24/presentation/sheng), weighted, with predicted output
lengths. Each tenant has a counter of the tokens it was served, divided by its weight; the oldest request of
the tenant with the lowest counter goes next. A tenant that comes back is lifted to the lowest counter of
those that wait. Counters are charged when a request is dispatched, with a prediction of its output (the
tenant's moving average), and corrected with the engine's usage. The prediction must be right on average:
with `max_tokens` instead, whoever comes back beside a tenant that was charged too much would have to wait
until all of that is paid back.

Whoever is next still has to wait for an answer to end, and with few slots that alone would show in others'
time to first token. `reserve_share` of the slots is therefore kept from tenants that hold their share.

Times are seconds of the clock whose `now` the caller passes in; it never goes back.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Literal

from serving.admission.drain import DrainRate
from serving.admission.fair_shares import Account, Entry, Shares, State
from serving.config.admission import PRIORITIES, AdmissionConfig, Priority
from serving.errors import MODEL_RETRY_S

Reason = Literal["full", "tenant_full", "deadline"]

UNLIMITED = sys.maxsize
# The shortest `Retry-After`.
MIN_RETRY_AFTER_S = 1.0
# The slowest rate; it keeps divisions from failing.
EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why a request may not even wait, and the seconds after which to try again."""

    reason: Reason
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """The queue of a model at one moment, by class; `drain_per_s` is None until it is measured."""

    waiting: Mapping[Priority, int]
    oldest_wait_s: Mapping[Priority, float]
    drain_per_s: float | None
    tenants: int


class FairQueue:
    """The slots of one model and the requests that wait for them.

    Operations take time O(tenants that wait + log entries). What waits ends in exactly one way: `next`
    returns it, `expire` returns it (its state says whether it expired or was displaced), or `cancel` takes
    it out. What was dispatched holds a slot until `finished` or `give_back`.
    """

    def __init__(self, config: AdmissionConfig, slots: int = UNLIMITED) -> None:
        self._config = config
        self._shares: dict[Priority, Shares] = {name: Shares(config) for name in PRIORITIES}
        self._by_rank = tuple(self._shares.values())
        self._rate = DrainRate()
        self._sequence = count()
        self._deadlines: list[tuple[float, int, Entry]] = []
        self._dropped: list[Entry] = []
        # The sum of the weights of accounts that have open requests.
        self._open_weight = 0.0
        self.slots = slots
        self.waiting = 0
        self.open = 0

    def reconfigure(self, config: AdmissionConfig) -> None:
        """Use other bounds from now on; waiting entries keep their places."""
        self._config = config
        for shares in self._by_rank:
            shares.reconfigure(config)

    def admit(self, entry: Entry) -> bool:
        """Dispatch an entry if there is room and nobody waits; False, and nothing happens, otherwise."""
        if self.waiting or self.open >= self.slots:
            return False
        shares = self._shares[entry.priority]
        account = shares.account(entry.tenant)
        self._weigh(account, entry.weight)
        if self.open >= self._common_slots and not self._may_use_reserve(account):
            return False
        shares.lift(account)
        self._dispatch(entry, account, shares)
        return True

    def offer(self, entry: Entry, now: float) -> Refusal | None:
        """Queue an entry, or return the reason why it may not wait. Call `next` and `expire` afterwards."""
        self._rate.advance(now, busy=self.waiting > 0)
        shares = self._shares[entry.priority]
        account = shares.account(entry.tenant)
        ahead = shares.ahead_of(account, entry.weight)
        for higher in self._by_rank[: PRIORITIES.index(entry.priority)]:
            ahead += higher.waiting
        reason = self._objection(entry, account, ahead, now)
        if reason is None and shares.waiting >= self._config.max_waiting:
            displaced = shares.displaced_by(entry, account)
            if displaced is None:
                reason = "full"
            else:
                self._drop(displaced, "displaced")
        if reason is not None:
            return Refusal(reason, self.retry_after_s(ahead))
        entry.sequence, entry.offered_s, entry.state = next(self._sequence), now, "waiting"
        self._weigh(account, entry.weight)
        shares.join(entry, account)
        self.waiting += 1
        heapq.heappush(self._deadlines, (entry.deadline_s, entry.sequence, entry))
        return None

    def next(self, now: float) -> Entry | None:
        """Dispatch the entry whose turn it is, but none that is past its deadline.

        Returns None when nobody waits, or when none of those who wait may have one of the free slots.
        """
        self._rate.advance(now, busy=self.waiting > 0)
        self._drop_expired(now)
        if not self.waiting or self.open >= self.slots:
            return None
        turn = self._turn(None if self.open < self._common_slots else self._may_use_reserve)
        if turn is None:
            return None
        shares, account = turn
        entry = next(iter(account.waiting.values()))
        self._remove(entry, account)
        self._dispatch(entry, account, shares)
        self._rate.count()
        return entry

    def cancel(self, entry: Entry) -> bool:
        """Remove a waiting entry; False if it does not wait, or no longer."""
        if entry.state != "waiting" or entry.account is None:
            return False
        entry.state = "cancelled"
        self._remove(entry, entry.account)
        return True

    def expire(self, now: float) -> list[Entry]:
        """Entries that were dropped since the last call: past their deadlines, or displaced."""
        self._rate.advance(now, busy=self.waiting > 0)
        self._drop_expired(now)
        dropped, self._dropped = self._dropped, []
        return dropped

    def finished(
        self, entry: Entry, prompt_tokens: int | None = None, output_tokens: int | None = None
    ) -> None:
        """End a dispatched entry, with the engine's usage; without one, the estimate stands."""
        account = self._end(entry, "finished")
        if account is not None and prompt_tokens is not None and output_tokens is not None:
            self._shares[entry.priority].correct(entry, account, prompt_tokens, output_tokens)

    def correct(self, entry: Entry, prompt_tokens: int, output_tokens: int) -> None:
        """Correct a finished entry with the engine's usage, which came late or has grown."""
        if entry.state == "finished" and entry.account is not None:
            shares = self._shares[entry.priority]
            shares.correct(entry, entry.account, prompt_tokens, output_tokens)

    def give_back(self, entry: Entry) -> None:
        """End a dispatched entry that never went to an engine: its tenant is not charged."""
        account = self._end(entry, "cancelled")
        if account is not None:
            account.counter -= entry.charged

    def retry_after_s(self, ahead: float = 0.0) -> float:
        """Seconds until so many entries ahead will be gone, at the measured rate; within bounds."""
        rate, wait_s = self._rate.per_s, MODEL_RETRY_S
        if rate is not None:
            wait_s = (ahead + 1) / max(rate, EPSILON)
        return min(max(wait_s, MIN_RETRY_AFTER_S), self._config.max_retry_after_s)

    def snapshot(self, now: float) -> QueueSnapshot:
        """The queue's state, to be shown."""
        self._rate.advance(now, busy=self.waiting > 0)
        oldest = {
            name: min(
                next(iter(account.waiting.values())).offered_s for account in shares.active.values()
            )
            for name, shares in self._shares.items()
            if shares.active
        }
        return QueueSnapshot(
            waiting={name: shares.waiting for name, shares in self._shares.items()},
            oldest_wait_s={name: now - oldest.get(name, now) for name in PRIORITIES},
            drain_per_s=self._rate.per_s,
            tenants=sum(len(shares.accounts) for shares in self._by_rank),
        )

    # ---- slots -------------------------------------------------------------------------------------------

    @property
    def _common_slots(self) -> int:
        """Slots that anyone may take; the rest is the reserve. A tenant that is alone needs no reserve."""
        if sum(len(shares.accounts) for shares in self._by_rank) < 2:
            return self.slots
        return self.slots - int(self.slots * self._config.reserve_share)

    def _may_use_reserve(self, account: Account) -> bool:
        """Whether the tenant holds less than its share of the slots; half of them, if it is the only one."""
        others = self._open_weight - (account.weight if account.open else 0.0)
        # The rounding error of sums of weights is not another tenant.
        others = others if others > EPSILON else account.weight
        return account.open * (account.weight + others) < self.slots * account.weight

    def _weigh(self, account: Account, weight: float) -> None:
        """Apply the weight of a key, which may change while the key has open requests."""
        if account.open:
            self._open_weight += weight - account.weight
        account.weight = weight

    def _dispatch(self, entry: Entry, account: Account, shares: Shares) -> None:
        shares.charge(entry, account)
        entry.state = "dispatched"
        if not account.open:
            self._open_weight += account.weight
        account.open += 1
        self.open += 1

    def _end(self, entry: Entry, state: State) -> Account | None:
        account = entry.account
        if entry.state != "dispatched" or account is None:
            return None
        entry.state = state
        self.open -= 1
        account.open -= 1
        if not account.open:
            self._open_weight = self._open_weight - account.weight if self.open else 0.0
        return account

    # ---- turns -------------------------------------------------------------------------------------------

    def _turn(self, may: Callable[[Account], bool] | None) -> tuple[Shares, Account] | None:
        turns = [
            (shares, account)
            for shares in self._by_rank
            if shares.active and (account := shares.least_served(may)) is not None
        ]
        if not turns:
            return None
        longest = max(turns, key=lambda turn: turn[0].passed_over)
        is_due = longest[0].passed_over >= self._config.aging_dispatches - 1
        chosen = longest if is_due else turns[0]
        for shares, _ in turns:
            shares.passed_over += 1
        chosen[0].passed_over = 0
        return chosen

    def _objection(self, entry: Entry, account: Account, ahead: float, now: float) -> Reason | None:
        if entry.deadline_s <= now:
            return "deadline"
        if len(account.waiting) >= self._config.max_waiting_per_tenant:
            return "tenant_full"
        rate = self._rate.per_s
        # Whoever would be first in line may try, whatever was measured: nothing else is measured anew.
        if rate is not None and ahead >= 1:
            begins_s = now + (ahead + 1) / max(rate, EPSILON)
            return "deadline" if begins_s > entry.deadline_s else None
        return None

    def _drop_expired(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            entry = heapq.heappop(self._deadlines)[2]
            if entry.state == "waiting":
                self._drop(entry, "expired")

    def _drop(self, entry: Entry, state: State) -> None:
        if entry.account is not None:
            entry.state = state
            self._remove(entry, entry.account)
            self._dropped.append(entry)

    def _remove(self, entry: Entry, account: Account) -> None:
        self._shares[entry.priority].leave(entry, account)
        self.waiting -= 1
        if len(self._deadlines) > 2 * self.waiting + 64:
            # Entries that left are only marked in the heap; here they are removed.
            self._deadlines = [item for item in self._deadlines if item[2].state == "waiting"]
            heapq.heapify(self._deadlines)
