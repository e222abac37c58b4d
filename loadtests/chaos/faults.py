"""The faults, what each may cost, and whether it cost no more. Pure but for `inject`."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.chaos.load import Outcome
from loadtests.chaos.stack import ChaosError, Stack
from loadtests.process_titles import ENGINE, below

# A connection that its gateway took with it is noticed within this time.
AT_ONCE_S = 1.0
# The kernel accepts connections for a killed process until it has taken its memory apart.
DYING_S = 0.25


@dataclass(frozen=True)
class Fault:
    """A process to hit, and with what."""

    name: str
    title: str
    signal: signal.Signals = signal.SIGKILL
    # Requests inside a gateway that dies die with it.
    takes_requests_along: bool = False


FAULTS = (
    Fault("kill -9 an engine process", ENGINE),
    Fault("kill -9 a replica", "ray::ServeReplica:qwen3:ModelReplica"),
    Fault("kill -9 the Serve controller", "ray::ServeController"),
    Fault("stop an engine process (SIGSTOP)", ENGINE, signal.SIGSTOP),
    Fault("kill -9 a gateway replica", "ray::ServeReplica:gateway", takes_requests_along=True),
)


def inject(fault: Fault, stack: Stack) -> tuple[set[int], float]:
    """Hit the oldest such process; returns the processes that must be replaced, and when it was."""
    victims = stack.find(fault.title)
    if not victims:
        raise ChaosError(f"there is no process {fault.title}")
    victim = victims[0]
    # An engine goes with its replica.
    gone = {victim.pid, *(child.pid for child in below(victim))}
    at_s = time.monotonic()
    victim.send_signal(fault.signal)
    return gone, at_s


@dataclass(frozen=True)
class Verdict:
    """What a fault cost the clients.

    Attributes:
        not_started: requests that got no answer and had not begun to stream one.
        said_so: streams that ended with an error event.
        silent: streams that ended without one.
        late: failures that a dying gateway does not explain.
    """

    fault: str
    requests: int
    not_started: int
    said_so: int
    silent: int
    late: int
    recovery_s: float
    details: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether it cost no more than it may."""
        return self.late == 0


def judge(fault: Fault, outcomes: Sequence[Outcome], at_s: float, recovery_s: float) -> Verdict:
    """Count the fates of the requests that ended after the fault at `at_s`."""
    seen = [outcome for outcome in outcomes if outcome.ended_s >= at_s]
    fates = Counter(outcome.fate for outcome in seen)
    bad = [o for o in seen if o.fate in ("not started", "broken silently")]
    if fault.takes_requests_along:
        bad = [o for o in bad if o.began_s > at_s + DYING_S or o.ended_s > at_s + AT_ONCE_S]
    return Verdict(
        fault.name,
        len(seen),
        fates["not started"],
        fates["broken, said so"],
        fates["broken silently"],
        len(bad),
        recovery_s,
        tuple(f"{o.fate} after {o.ended_s - at_s:.2f} s: {o.detail}" for o in bad[:5]),
    )
