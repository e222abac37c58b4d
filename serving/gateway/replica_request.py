"""One request on its way to replicas: its body, and the attempts so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from serving.admission.deadline import Deadline
from serving.admission.quarantine import Suspect
from serving.discovery.directory import Replica
from serving.errors import MODEL_RETRY_S, ModelUnavailableError
from serving.records import record
from serving.replicas.choice import RoutedRequest

# What kills slowly is not acquitted for ever.
MAX_ACQUITTALS = 2
# A request of which no policy may know anything.
UNKNOWN = RoutedRequest()


class NoReplicaError(ModelUnavailableError):
    """No replica of the model can be asked just now; the request has not begun, and can be held."""

    def __init__(self) -> None:
        super().__init__(
            "no replica of the model answers now; try again shortly",
            param="model",
            retry_after_s=MODEL_RETRY_S,
        )


@record
class ComputedPrompt:
    """A request whose prompt is computed: what goes to the replica that answers, and which can read it."""

    body: bytes
    build: str


@record
class ReplicaRequest:
    """A request as it goes to a replica, and what the replica policy may know of it.

    `queued`: requests that wait for this model in this gateway. `computed`: the body with which an engine of
    this build fetches the prompt that a prefill replica has computed, instead of computing it. `deadline`:
    from then on no other replica is asked. `key`: stands for the tenant's key in bills. `adapter`: the LoRA
    adapter that is asked, "" for the model itself.
    """

    model_id: str
    path: str
    body: bytes
    request_id: str
    routed: RoutedRequest = UNKNOWN
    queued: int = 0
    computed: ComputedPrompt | None = None
    tenant: str = ""
    deadline: Deadline | None = None
    key: str = ""
    adapter: str = ""

    @property
    def suspect(self) -> Suspect:
        """The request as the quarantine knows it."""
        return Suspect(self.tenant, self.model_id, self.path, self.body)


@dataclass(slots=True)
class RetryState:
    """What has been tried for one request at one model, in all the rounds between which it was held.

    Attributes:
        replicas: those that were asked in vain.
        machines: those that gave no sign of life.
        failed: replicas that live and failed at it.
        attempts: replicas asked in this round.
        deaths: engines that died under it and for which it may be to blame.
        died: all that died under it.
        acquittals: how often it has been at work on another engine for a while without harm.
        is_counted: it is part of the retry budget's requests.
        is_free: the next try costs nothing of the retry budget.
        is_handed: a replica was told where the computed prompt is.
        again_s: when those that were asked in vain may be asked once more.
    """

    replicas: set[str] = field(default_factory=set)
    machines: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)
    attempts: int = 0
    deaths: int = 0
    died: int = 0
    acquittals: int = 0
    is_counted: bool = False
    is_free: bool = True
    is_handed: bool = False
    again_s: float = math.inf

    def begin(self, now: float) -> None:
        """A round begins."""
        self.attempts = 0
        if now >= self.again_s:
            self.replicas.clear()
            self.machines.clear()
            self.again_s = math.inf

    def acquit(self) -> None:
        """It has worked elsewhere without harm: what died under it died of something else."""
        if self.acquittals < MAX_ACQUITTALS:
            self.acquittals += 1
            self.deaths = 0

    def may_ask(self, replica: Replica, now: float) -> bool:
        """Whether the next round could ask it."""
        return now >= self.again_s or replica.id not in self.replicas

    def body(self, request: ReplicaRequest, replica: Replica) -> bytes:
        """What goes to this replica. A computed prompt is kept until it was fetched, which is once."""
        computed = request.computed
        if computed is None or self.is_handed or computed.build != replica.build:
            return request.body
        self.is_handed = True
        return computed.body
