"""Simulated engines: a queue, a prefill at a time, decode slots, a prefix cache that drops what is oldest.

Prompts are counted in blocks of 16 tokens, as vLLM caches them. A prefill takes time in proportion to the
tokens that are not cached. Reports reach the gateway every half second, as Ray Serve delivers them.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from serving.discovery.directory import Replica
from serving.replica_facts import ReplicaStats
from serving.replicas.choice import Choice, RoutedRequest

BLOCK_TOKENS = 16


@dataclass(frozen=True)
class CachingModel:
    """The abilities of one replica. The defaults are an 8B model on one GPU, in round numbers."""

    kv_tokens: int = 200_000
    prefill_tokens_per_s: float = 10_000.0
    # A step of the engine, which every first token takes.
    step_s: float = 0.02
    slots: int = 64
    # A batch of n requests yields n tokens every itl_s + itl_per_request_s * n.
    itl_s: float = 0.015
    itl_per_request_s: float = 0.0003


@dataclass(slots=True, eq=False)
class SimRequest:
    """A request: its prompt for the policy, for the cache, and what became of it."""

    routed: RoutedRequest
    # The blocks of the prompt and of the answer behind it; equal ones have equal beginnings.
    blocks: Sequence[Hashable]
    prompt_tokens: int
    answer_tokens: int
    conversation: int
    gateway: int = 0
    arrived_s: float = 0.0
    first_token_s: float = 0.0
    cached_tokens: int = 0
    choice: Choice | None = None
    when_done: Callable[[], None] = lambda: None

    @property
    def ttft_s(self) -> float:
        """Seconds to the first token."""
        return self.first_token_s - self.arrived_s


@dataclass
class Engine:
    """One replica: what it works on and what it has cached."""

    id: str
    model: CachingModel
    waiting: deque[SimRequest] = field(default_factory=deque)
    running: int = 0
    prefilling: SimRequest | None = None
    prefill_ends_s: float = 0.0
    active_tokens: int = 0
    cache: OrderedDict[Hashable, None] = field(default_factory=OrderedDict)
    stats: ReplicaStats = field(default_factory=ReplicaStats)

    def cached_tokens(self, request: SimRequest) -> int:
        """Tokens of a prompt that need not be computed; the last one always must be."""
        blocks = 0
        for block in request.blocks[: (request.prompt_tokens - 1) // BLOCK_TOKENS]:
            if block not in self.cache:
                break
            blocks += 1
        return blocks * BLOCK_TOKENS

    def prefill_s(self, tokens: float) -> float:
        """How long a prompt takes of which so many tokens are not cached."""
        return self.model.step_s + tokens / self.model.prefill_tokens_per_s

    def start_next(self, now_s: float) -> SimRequest | None:
        """Begin the next prefill, if there is something to do and room for it."""
        if self.prefilling or not self.waiting or self.running >= self.model.slots:
            return None
        request = self.waiting.popleft()
        request.cached_tokens = self.cached_tokens(request)
        self._keep(request.blocks[: request.prompt_tokens // BLOCK_TOKENS])
        self.running += 1
        self.active_tokens += request.prompt_tokens + request.answer_tokens
        self.prefilling = request
        computed = request.prompt_tokens - request.cached_tokens
        self.prefill_ends_s = now_s + self.prefill_s(computed)
        return request

    def decode_s(self, request: SimRequest) -> float:
        """How long the answer takes, with as much company as it has at its beginning."""
        itl_s = self.model.itl_s + self.model.itl_per_request_s * self.running
        return itl_s * request.answer_tokens

    def finish(self, request: SimRequest) -> None:
        """The answer is complete, and cached like the prompt."""
        self._keep(request.blocks)
        self.running -= 1
        self.active_tokens -= request.prompt_tokens + request.answer_tokens

    def report(self, now_s: float) -> None:
        """Publish the load, as `serving.engine.signals` does."""
        self.stats = ReplicaStats(
            running=float(self.running),
            waiting=float(len(self.waiting)),
            kv_cache_use=min(1.0, self.active_tokens / max(1, self.model.kv_tokens)),
            last_step_s=now_s,
        )

    def as_replica(self) -> Replica:
        """What the gateway sees."""
        return Replica(self.id, f"http://{self.id}", "", self.stats)

    def _keep(self, blocks: Sequence[Hashable]) -> None:
        # The end first: it is the first to be dropped.
        for block in reversed(blocks):
            self.cache[block] = None
            self.cache.move_to_end(block)
        while len(self.cache) > self.model.kv_tokens // BLOCK_TOKENS:
            self.cache.popitem(last=False)
