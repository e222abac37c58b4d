"""The workloads of the simulated replicas: conversations with shared system prompts, and without."""

from __future__ import annotations

import random
from collections.abc import Hashable
from dataclasses import dataclass, replace

from loadtests.simulation.routing.engines import BLOCK_TOKENS, CachingModel, SimRequest
from serving import api
from serving.replicas.choice import RoutedRequest
from serving.replicas.prompt_prefix import prompt_prefix, session_key

CHARACTERS_PER_TOKEN = 4
PATH = api.CHAT


@dataclass(frozen=True)
class Workload:
    """Conversations that begin one after another; the next turn follows the answer after a pause."""

    name: str
    replicas: int
    engine: CachingModel
    conversations: int
    turns: int
    # Conversations that begin per second.
    starts_per_s: float
    # Mean pause of a user, seconds; tokens of a question and of an answer (half to one and a half times).
    pause_s: float = 5.0
    question_tokens: int = 100
    answer_tokens: int = 150
    # How many system prompts there are, and their length; 0: none is shared.
    system_prompts: int = 0
    system_tokens: int = 0
    gateways: int = 1


class Conversation:
    """Grows by a question and an answer at a time."""

    def __init__(self, workload: Workload, number: int, seed: int) -> None:
        self._workload = workload
        self._number = number
        self._random = random.Random(f"{workload.name} {seed} {number}")
        self._messages: list[dict[str, str]] = []
        self._tokens = 0
        self._blocks: list[Hashable] = []
        self.turns = 0
        if workload.system_prompts:
            self._system = self._random.randrange(workload.system_prompts)
            self._say("system", f"system {self._system} ", workload.system_tokens)
            self._blocks = [
                ("system", self._system, index)
                for index in range(workload.system_tokens // BLOCK_TOKENS)
            ]

    @property
    def is_over(self) -> bool:
        """Whether all has been said."""
        return self.turns == self._workload.turns

    def next(self) -> SimRequest:
        """The next turn, with all that was said before."""
        self.turns += 1
        tag = f"{self._number} {self.turns} "
        self._say("user", "question " + tag, self._about(self._workload.question_tokens))
        prompt = prompt_prefix(PATH, {"messages": self._messages}, b"salt")
        prompt_tokens, answer_tokens = self._tokens, self._about(self._workload.answer_tokens)
        self._say("assistant", "answer " + tag, answer_tokens)
        self._blocks += [
            (self._number, index)
            for index in range(len(self._blocks), self._tokens // BLOCK_TOKENS)
        ]
        return SimRequest(
            RoutedRequest(prompt, session_key("caller", None, prompt), prompt.total_bytes),
            tuple(self._blocks),
            prompt_tokens,
            answer_tokens,
            self._number,
            gateway=self._random.randrange(self._workload.gateways),
        )

    def pause_s(self) -> float:
        """How long the user thinks."""
        return self._random.expovariate(1 / self._workload.pause_s)

    def _about(self, tokens: int) -> int:
        return max(1, round(tokens * self._random.uniform(0.5, 1.5)))

    def _say(self, role: str, text: str, tokens: int) -> None:
        characters = tokens * CHARACTERS_PER_TOKEN
        content = (text * (characters // len(text) + 1))[:characters]
        self._messages.append({"role": role, "content": content})
        self._tokens += tokens


def conversation_tokens(workload: Workload) -> int:
    """Tokens of all conversations at their ends, shared system prompts counted once."""
    own = workload.turns * (workload.question_tokens + workload.answer_tokens)
    return workload.conversations * own + workload.system_prompts * workload.system_tokens


def with_third(workload: Workload, sharers: int) -> Workload:
    """With caches of which `sharers` together hold a third of all conversations."""
    kv_tokens = conversation_tokens(workload) // (3 * sharers)
    return replace(workload, engine=replace(workload.engine, kv_tokens=kv_tokens))


_CHAT = Workload(
    name="",
    replicas=8,
    engine=CachingModel(),
    conversations=400,
    turns=8,
    starts_per_s=8.0,
    pause_s=8.0,
    system_prompts=4,
    system_tokens=400,
)
_QUESTIONS = replace(_CHAT, conversations=2000, turns=1, starts_per_s=40.0)
WORKLOADS: dict[str, Workload] = {
    one.name: one
    for one in (
        # Conversations; each cache holds a third of them, or all caches together do.
        replace(with_third(_CHAT, 1), name="chat"),
        replace(with_third(_CHAT, 8), name="chat-tight"),
        replace(_CHAT, name="pair", replicas=2, conversations=8, turns=6, starts_per_s=1.0),
        # One question each to 24 assistants with long prompts, of which a cache holds ten; and all to one.
        replace(
            _QUESTIONS,
            name="assistants",
            engine=replace(_CHAT.engine, kv_tokens=60_000),
            system_prompts=24,
            system_tokens=6000,
        ),
        replace(_QUESTIONS, name="hot-prompt", system_prompts=1, system_tokens=6000),
        replace(
            _QUESTIONS,
            name="nothing-shared",
            conversations=4000,
            starts_per_s=28.0,
            question_tokens=2000,
            system_prompts=0,
        ),
    )
}
