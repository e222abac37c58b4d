"""Tenants' shares of a busy model: what each one of a class was served, and whose turn it is. Pure.

The Virtual Token Counter of "Fairness in Serving Large Language Models" (Sheng et al., OSDI 2024,
https://www.usenix.org/conference/osdi24/presentation/sheng), weighted, with predicted output lengths;
`fair_queue` says how it is used.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from serving.config.admission import AdmissionConfig, Priority

State = Literal["new", "waiting", "dispatched", "finished", "expired", "displaced", "cancelled"]

# The weight of the newest answer in the expected length of the next one.
LEARNING_RATE = 0.2


@dataclass(slots=True, eq=False)
class Entry:
    """A request in the queue: the caller makes it, the queue keeps it up to date.

    `max_output_tokens` is None where the request names no limit, 0 where there is no output (embeddings).
    `charged` is what its tenant's counter was charged, in weighted tokens per unit of the tenant's weight.
    """

    tenant: str
    priority: Priority = "standard"
    weight: float = 1.0
    prompt_tokens: int = 0
    max_output_tokens: int | None = None
    deadline_s: float = math.inf
    offered_s: float = 0.0
    sequence: int = -1
    state: State = "new"
    charged: float = 0.0
    account: Account | None = field(default=None, repr=False)


@dataclass(slots=True, eq=False)
class Account:
    """One tenant in one class: what it was served, and its requests that wait (by `sequence`)."""

    tenant: str
    counter: float
    expected_output_tokens: float
    weight: float = 1.0
    open: int = 0
    waiting: OrderedDict[int, Entry] = field(default_factory=OrderedDict)


class Shares:
    """The tenants of one class: the Virtual Token Counter."""

    def __init__(self, config: AdmissionConfig) -> None:
        self._config = config
        self._expected_output_tokens = config.expected_output_tokens
        # The counter that the tenant served last had before; it never falls.
        self._level = 0.0
        # The highest counter of a tenant that was forgotten.
        self._floor = 0.0
        self.accounts: dict[str, Account] = {}
        self.active: dict[str, Account] = {}
        self.waiting = 0
        self.passed_over = 0

    def reconfigure(self, config: AdmissionConfig) -> None:
        """Use other weights from now on; counters stay."""
        self._config = config

    def account(self, tenant: str) -> Account:
        """The account of a tenant; a new one if it is not known."""
        account = self.accounts.get(tenant)
        if account is None:
            if len(self.accounts) >= self._config.max_tenants:
                self._forget()
            account = Account(tenant, self._floor, self._expected_output_tokens)
            self.accounts[tenant] = account
        return account

    def lift(self, account: Account) -> None:
        """Lift a tenant that comes back: it is owed nothing for the time without requests."""
        level = min((known.counter for known in self.active.values()), default=self._level)
        account.counter = max(account.counter, level)

    def join(self, entry: Entry, account: Account) -> None:
        """Add an entry at the end of its tenant's line."""
        if not account.waiting:
            self.lift(account)
            self.active[account.tenant] = account
        account.waiting[entry.sequence] = entry
        entry.account = account
        self.waiting += 1

    def leave(self, entry: Entry, account: Account) -> None:
        """Remove an entry that waits no longer."""
        del account.waiting[entry.sequence]
        self.waiting -= 1
        if not account.waiting:
            del self.active[account.tenant]
            if not self.active:
                self.passed_over = 0

    def least_served(self, may: Callable[[Account], bool] | None) -> Account | None:
        """The tenant whose turn it is, of those that wait and for which `may` holds."""
        accounts = self.active.values()
        return min(accounts if may is None else filter(may, accounts), key=_turn, default=None)

    def charge(self, entry: Entry, account: Account) -> None:
        """Charge the tenant of a dispatched entry what the entry is expected to cost."""
        self._level = max(self._level, account.counter)
        output = account.expected_output_tokens
        if entry.max_output_tokens is not None and entry.max_output_tokens < output:
            output = entry.max_output_tokens
        entry.charged = self._cost(entry.prompt_tokens, output) / entry.weight
        account.counter += entry.charged
        entry.account = account

    def correct(self, entry: Entry, account: Account, prompt: int, output: int) -> None:
        """Replace the estimate by the engine's count, and learn from it."""
        charged = self._cost(prompt, output) / entry.weight
        account.counter += charged - entry.charged
        entry.charged = charged
        if entry.max_output_tokens != 0:
            account.expected_output_tokens += LEARNING_RATE * (
                output - account.expected_output_tokens
            )
            self._expected_output_tokens += LEARNING_RATE * (output - self._expected_output_tokens)

    def ahead_of(self, account: Account, weight: float) -> float:
        """Entries of this class that go before the tenant's next one, if requests cost the same."""
        rounds = (len(account.waiting) + 1) / weight
        others = sum(
            min(len(other.waiting), rounds * other.weight)
            for other in self.active.values()
            if other is not account
        )
        return len(account.waiting) + others

    def displaced_by(self, entry: Entry, account: Account) -> Entry | None:
        """The entry that must make room in a full queue: the newest of whoever fills it most, by weight.

        Returns None if the tenant of `entry` would then fill it as much.
        """
        if not self.active:
            return None
        fullest = max(self.active.values(), key=lambda known: len(known.waiting) / known.weight)
        if len(fullest.waiting) / fullest.weight <= (len(account.waiting) + 1) / entry.weight:
            return None
        return next(reversed(fullest.waiting.values()))

    def _cost(self, prompt: float, output: float) -> float:
        # Each request costs something, or a tenant of empty requests would go first for ever.
        return max(1.0, self._config.input_weight * prompt + self._config.output_weight * output)

    def _forget(self) -> None:
        """Forget the least served eighth of the tenants that have no request here.

        Most were served less than those that wait, and would be lifted when they come back: nothing is lost.
        By being forgotten nobody gets ahead either: for those that were served more there is the floor.
        """
        idle = [known for known in self.accounts.values() if not known.waiting and not known.open]
        idle.sort(key=lambda account: account.counter)
        for account in idle[: self._config.max_tenants // 8 + 1]:
            del self.accounts[account.tenant]
            self._floor = max(self._floor, account.counter)


def _turn(account: Account) -> tuple[float, int]:
    """The order of tenants: the least served first; of equals, the one whose request is the oldest."""
    return account.counter, next(iter(account.waiting))
