"""The interface of replica policies: a request as they see it, their choice, the calls they get. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, Protocol

from serving.config.replica_routing import PolicyName
from serving.discovery.directory import Replica
from serving.records import record
from serving.replicas.prompt_prefix import EMPTY, PromptPrefix

Reason = Literal["prefix", "spill", "session", "load"]
# A source of numbers of [0, 1), such as `random.Random(seed).random`.
RandomSource = Callable[[], float]


@record
class RoutedRequest:
    """A request, as far as a policy may know it.

    Attributes:
        prompt: hashes of its prompt; `EMPTY` where the policy reads none.
        session: the key of its session (`session_key`); "" if there is none.
        body_bytes: length of its body, which stands in for an unknown length of the prompt.
        is_streamed: whether the answer begins before it is complete.
    """

    prompt: PromptPrefix = EMPTY
    session: str = ""
    body_bytes: int = 0
    is_streamed: bool = True

    @property
    def prompt_bytes(self) -> int:
        """The length of the prompt, or of the body where that is unknown."""
        return self.prompt.total_bytes or self.body_bytes


@record
class Choice:
    """The replica that gets a request, and why.

    Attributes:
        reason: "prefix": none has more of the prompt in its cache; "session": it is the home of the session
            or conversation; "spill": another one fits better and has too much to do; "load": none fits, and
            this one has little to do.
        computed_bytes: bytes of the prompt that the replica probably has to compute.
        expected_bytes: bytes of the prompt that it should have in its cache, as far as this gateway knows.
        known_at: when it last used these, in ticks of the prefix index.
        is_streamed: as in the request.
    """

    replica: Replica
    policy: PolicyName
    reason: Reason
    computed_bytes: int = 0
    expected_bytes: int = 0
    known_at: int = 0
    is_streamed: bool = True


class ReplicaPolicy(Protocol):
    """A policy that chooses replicas. All calls come from one thread; none does I/O or fails."""

    @property
    def name(self) -> PolicyName:
        """Its name in the configuration."""
        ...

    @property
    def reads_prompt(self) -> bool:
        """Whether it looks at `RoutedRequest.prompt`."""
        ...

    def choose(
        self, request: RoutedRequest, replicas: Sequence[Replica], in_flight: Mapping[str, int]
    ) -> Choice:
        """Choose one of `replicas` (there is at least one), which then gets the request.

        Args:
            in_flight: requests that this gateway has open, by replica id.
        """
        ...

    def began(self, choice: Choice) -> None:
        """Take note that the replica has begun to answer, or never will. Called once for each choice."""
        ...

    def served(
        self,
        request: RoutedRequest,
        choice: Choice,
        cached_tokens: int | None,
        prompt_tokens: int | None,
    ) -> None:
        """Learn from the engine's `usage` of a request that was answered; None where it is not known."""
        ...

    def forget(self, live: Collection[str]) -> None:
        """Drop what is known of replicas whose ids are not among these."""
        ...
