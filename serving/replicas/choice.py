"""The words of replica policies: what they are asked, what they answer, which calls they get. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, Protocol

from serving.config.replicas import PolicyName
from serving.discovery.directory import Replica
from serving.records import record
from serving.replicas.prompt_prefix import EMPTY, PromptPrefix

Reason = Literal["prefix", "spill", "session", "load"]
# Numbers of [0, 1), such as `random.Random(seed).random`.
RandomSource = Callable[[], float]


@record
class RoutedRequest:
    """What a policy may know of a request.

    Attributes:
        prompt: hashes; `EMPTY` where no policy reads them.
        session: a key, see `session_key`; "" if there is none.
        body_bytes: length of the body, which stands in for the prompt's where that is not known.
        is_streamed: whether the answer begins before it is complete.
    """

    prompt: PromptPrefix = EMPTY
    session: str = ""
    body_bytes: int = 0
    is_streamed: bool = True

    @property
    def prompt_bytes(self) -> int:
        """How long the prompt is, as far as is known."""
        return self.prompt.total_bytes or self.body_bytes


@record
class Choice:
    """The replica that gets a request, and why.

    Attributes:
        reason: "prefix": none has more of the prompt in its cache; "session": it is the home of the session
            or conversation; "spill": another one fits better and has too much to do; "load": none fits, and
            this one has little to do.
        computed_bytes: of the prompt, which the replica probably has to compute.
        expected_bytes: of the prompt, which it should have in its cache, as far as this gateway knows.
        known_at: when it last used these, in the policy's own count.
        is_streamed: as of the request.
    """

    replica: Replica
    policy: PolicyName
    reason: Reason
    computed_bytes: int = 0
    expected_bytes: int = 0
    known_at: int = 0
    is_streamed: bool = True


class ReplicaPolicy(Protocol):
    """Picks replicas. Called from one thread; none of the calls does I/O or fails."""

    @property
    def name(self) -> PolicyName:
        """What the configuration calls it."""
        ...

    @property
    def reads_prompt(self) -> bool:
        """Whether it looks at `RoutedRequest.prompt`."""
        ...

    def choose(
        self, request: RoutedRequest, replicas: Sequence[Replica], in_flight: Mapping[str, int]
    ) -> Choice:
        """Pick one of `replicas` (there is at least one) and count on it to get the request.

        Args:
            in_flight: requests that this gateway has open, by replica id.
        """
        ...

    def began(self, choice: Choice) -> None:
        """The replica has begun to answer, or never will. Called once for each choice."""
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
