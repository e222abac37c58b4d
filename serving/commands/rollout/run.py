"""Executes a rollout's steps on a cluster, and waits until each has taken effect."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from serving.commands.output import note
from serving.commands.rollout.api import Cluster, Endpoint, Running
from serving.errors import ComptoirError, StackError
from serving.rollout.document import read_site, without_application
from serving.rollout.figures import is_ready, open_requests, require_site
from serving.rollout.steps import Rollout, decided, ended

POLL_S = 0.5
# A replica's own count of requests is up to half a second old, another gateway's a second and a half, and a
# gateway's look at Serve two.
QUIET_S = 3.0
# After Serve says that it runs: until a gateway has found it and it has answered.
ANSWER_WITHIN_S = 60.0
_FAILED = ("DEPLOY_FAILED", "UNHEALTHY")


@dataclass
class Run:
    """One command's work on a cluster.

    Args:
        timeout_s: limit of each wait.
    """

    cluster: Cluster
    endpoint: Endpoint
    timeout_s: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def bring(self, running: Running, staged: Mapping[str, Any], rollout: Rollout) -> Running:
        """Deploy the new revision and wait until it answers; otherwise remove it.

        Raises:
            StackError: it did not come up; the present revision has not been touched.
        """
        note(f"starting {rollout.new} beside {rollout.old}")
        self.cluster.submit(running.document, staged)
        try:
            self._wait_until_running(rollout.new)
            self._wait_until_it_answers(rollout.new)
        except BaseException as error:
            # Ctrl-C, too: a revision that nobody waits for would only hold its GPUs.
            self._withdraw(rollout.new)
            if isinstance(error, ComptoirError):
                raise StackError(
                    f"{rollout.new} was removed, and {rollout.old} serves as before: "
                    f"{error.message}"
                ) from None
            raise
        return self.cluster.running()

    def route(self, running: Running, document: Mapping[str, Any]) -> Running:
        """Give the gateways their new routing, and wait until all have it."""
        self.cluster.submit(running.document, document)
        self._wait_until_running(str(read_site(document).gateway["name"]))
        return self.cluster.running()

    def end(self, running: Running, rollout: Rollout, keep: Literal["old", "new"]) -> Running:
        """Send all requests to one revision, let the other finish its own, then remove it."""
        kept, gone = rollout.old, rollout.new
        if keep == "new":
            kept, gone = gone, kept
        running = self.route(running, decided(running.document, rollout.model, keep))
        note(f"all new requests go to {kept}; waiting for those that {gone} still answers")
        self._wait_until_drained(gone)
        self.cluster.submit(running.document, ended(running.document, rollout.model, keep))
        note(f"removing {gone}")
        self._poll(
            lambda: self.cluster.running().state(gone) == "GONE" or None,
            f"{gone} is still shutting down",
        )
        return self.cluster.running()

    def require_site(self) -> None:
        """Refuse a key that cannot see waiting requests, before anything is changed.

        Raises:
            StackError: it lacks the scope operator, or the endpoint does not answer.
        """
        require_site(self.endpoint.status())

    def require_health(self, running: Running, rollout: Rollout) -> None:
        """Refuse to send more requests to an unhealthy revision.

        Raises:
            StackError: Serve says that it is not.
        """
        state = running.state(rollout.new)
        if state != "RUNNING":
            raise StackError(
                f"{rollout.new} is {state}, so it gets no more requests than now: "
                f"{running.message(rollout.new)}; `comptoir rollout abort {rollout.model}` removes it"
            )

    def _withdraw(self, name: str) -> None:
        note(f"removing {name}")
        # From what runs now: what others changed meanwhile stays.
        document = self.cluster.running().document
        self.cluster.submit(document, without_application(document, name))

    def _wait_until_running(self, name: str) -> None:
        began = self.clock()
        shown = ""

        def look() -> bool | None:
            nonlocal shown
            running = self.cluster.running()
            state = running.state(name)
            if state != shown:
                note(f"{self.clock() - began:5.0f} s  {name}: {state.lower()}")
                shown = state
            if state in _FAILED:
                raise _GivenUp(f"{name} is {state}: {running.message(name)}")
            return state == "RUNNING" or None

        self._poll(look, f"{name} is not running")

    def _wait_until_it_answers(self, name: str) -> None:
        self._poll(
            lambda: is_ready(self.endpoint.status(), name) or None, f"no gateway knows {name}"
        )
        self._poll(lambda: self.endpoint.ask(name), f"{name} gives no answer", ANSWER_WITHIN_S)
        note(f"{name} answers")

    def _wait_until_drained(self, name: str) -> None:
        quiet_since: float | None = None
        shown = 0

        def look() -> bool | None:
            nonlocal quiet_since, shown
            count = open_requests(self.endpoint.status(), name)
            if count:
                quiet_since = None
                if count != shown:
                    note(f"{name}: {count} open")
            elif quiet_since is None:
                quiet_since = self.clock()
            shown = count
            return (quiet_since is not None and self.clock() - quiet_since >= QUIET_S) or None

        self._poll(
            look, f"{name} still has open requests, which are left alone; run the command again"
        )

    def _poll(
        self, look: Callable[[], bool | None], late: str, timeout_s: float | None = None
    ) -> None:
        """Poll until the condition holds. One poll may fail while a dashboard or gateway is replaced."""
        limit_s = self.timeout_s if timeout_s is None else min(timeout_s, self.timeout_s)
        deadline = self.clock() + limit_s
        last = ""
        while True:
            try:
                if look():
                    return
            except _GivenUp as error:
                raise StackError(error.message) from None
            except StackError as error:
                last = f" ({error.message})"
            if self.clock() >= deadline:
                raise StackError(f"{late} after {limit_s:.0f} s{last}; --timeout gives it longer")
            self.sleep(POLL_S)


class _GivenUp(ComptoirError):
    """Further waiting is pointless."""
