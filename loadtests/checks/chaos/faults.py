"""The faults, their allowed cost, and whether they cost no more. Pure except for `inject`."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.checks.chaos.load import Outcome
from loadtests.checks.stack import ChaosError, Stack
from loadtests.processes.titles import ENGINE, below

# Of deployments/chaos.yaml: two replicas, and one that is alone.
MODEL, SOLO = "qwen3", "solo"
REPLICA = "ray::ServeReplica:{}:ModelReplica"
# A connection that its gateway took with it is noticed within this time.
AT_ONCE_S = 1.0
# The kernel accepts connections for a killed process until it has taken its memory apart.
DYING_S = 0.25


@dataclass(frozen=True)
class Fault:
    """Processes to hit, and with what.

    `title`: of the processes; `ENGINE` means those of `model`, which is under load. `count`: so many, the
    oldest, at the same moment.
    """

    name: str
    title: str
    signal: signal.Signals = signal.SIGKILL
    model: str = MODEL
    count: int = 1
    # Requests inside a gateway that dies die with it.
    takes_requests_along: bool = False


FAULTS = (
    Fault("kill -9 the only engine process of a model", ENGINE, model=SOLO),
    Fault("kill -9 the only replica of a model", REPLICA.format(SOLO), model=SOLO),
    Fault("kill -9 two replicas at once", REPLICA.format(MODEL), count=2),
    Fault("kill -9 two engine processes at once", ENGINE, count=2),
    Fault("kill -9 an engine process", ENGINE),
    Fault("kill -9 a replica", REPLICA.format(MODEL)),
    Fault("kill -9 the Serve controller", "ray::ServeController"),
    Fault("stop an engine process (SIGSTOP)", ENGINE, signal.SIGSTOP),
    Fault("kill -9 a gateway replica", "ray::ServeReplica:gateway", takes_requests_along=True),
)


def inject(fault: Fault, stack: Stack) -> tuple[set[int], float]:
    """Hit the oldest such processes; return the processes to be replaced, and the time."""
    is_engine = fault.title == ENGINE
    found = stack.engines(fault.model) if is_engine else stack.find(fault.title)
    if len(found) < fault.count:
        raise ChaosError(f"there are {len(found)} processes {fault.title}")
    victims = found[: fault.count]
    # An engine goes with its replica.
    gone = {pid for one in victims for pid in (one.pid, *(child.pid for child in below(one)))}
    at_s = time.monotonic()
    for victim in victims:
        victim.send_signal(fault.signal)
    return gone, at_s


@dataclass(frozen=True)
class Verdict:
    """The cost of a fault for clients.

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
