"""Sends a plan's requests at their times, each in a greenlet of its own, whatever the answers take.

Open loops never wait for an answer before the next send, so a slow server cannot hide its queue (no
coordinated omission). In a closed loop each user waits for its answer, and thinks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import gevent
import orjson
from gevent.pool import Group

from loadtests.answers.reading import Expected
from loadtests.generator.client import Client
from loadtests.run.record import Record
from loadtests.workload.bodies import Composer, Turns
from loadtests.workload.conversations import Conversation
from loadtests.workload.scenario import ClassConfig, Scenario

# A generator wakes up this long before a send and waits for the rest without giving way to others.
SPIN_S = 0.0002


@dataclass(slots=True)
class Progress:
    """Counts of one generator process; `planned` is 0 in a closed loop."""

    planned: int = 0
    sent: int = 0
    done: int = 0
    ok: int = 0
    in_flight: int = 0
    is_over: bool = False


@dataclass
class Generator:
    """One process's part of a run.

    Args:
        clock: seconds since the run began; before that, negative.
        sink: gets every record when its request is over.
        environ: where tenants' keys are looked up.
    """

    scenario: Scenario
    composer: Composer
    client: Client
    clock: Callable[[], float]
    sink: Callable[[Record], None]
    worker: int = 0
    # Of a closed loop: conversations that may begin.
    most: int | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def __post_init__(self) -> None:
        self.progress = Progress()
        self._classes = {one.name: one for one in self.scenario.classes}
        self._headers = {one.name: self._headers_of(one) for one in self.scenario.classes}
        self._group = Group()
        self._count = 0
        self.has_sent_all = False

    def drive_open(self, conversations: Iterable[Conversation]) -> None:
        """Start every conversation at its time; returns when the last has been started."""
        for conversation in conversations:
            first = self._prepare(conversation, 0)
            _sleep_until(conversation.at_s, self.clock)
            self._group.spawn(self._converse, conversation, first)
        # Only a plan that was cut has nothing to send for the rest of its time.
        self.has_sent_all = self.scenario.max_requests is not None

    def drive_closed(self, conversations: Iterator[Conversation]) -> None:
        """One user: conversation after conversation, until no more may begin."""
        for conversation in conversations:
            if self.clock() >= self.scenario.duration_s or not self._may_begin():
                return
            self._converse(conversation, self._prepare(conversation, 0), self.clock())
            gevent.sleep(self._classes[conversation.class_name].think_s)

    def _may_begin(self) -> bool:
        """Whether the most requests that the scenario allows have not been begun yet."""
        if self.most is None:
            return True
        self.most -= 1
        return self.most >= 0

    @property
    def is_spent(self) -> bool:
        """Whether every request that the scenario allows has been begun."""
        return self.most is not None and self.most <= 0

    def cancel(self) -> None:
        """Give up what has not been answered; it is recorded as an error."""
        self._group.kill(block=True, timeout=5)
        self.client.close()

    @property
    def pending(self) -> int:
        """Conversations that have been started and have not ended."""
        return len(self._group)

    # ---- one conversation --------------------------------------------------------------------------------

    def _converse(
        self, conversation: Conversation, first: _Prepared, intended_s: float | None = None
    ) -> None:
        kind = self._classes[conversation.class_name]
        prepared, intended = first, conversation.at_s if intended_s is None else intended_s
        for turn in range(len(conversation.turns)):
            if turn:
                gevent.sleep(kind.think_s)
                intended = self.clock()
                if intended >= self.scenario.duration_s:
                    return
                prepared = self._prepare(conversation, turn, prepared.turns)
            if not self._send(conversation, turn, kind, prepared, intended):
                return

    def _send(
        self,
        conversation: Conversation,
        turn: int,
        kind: ClassConfig,
        prepared: _Prepared,
        intended_s: float,
    ) -> bool:
        planned = conversation.turns[turn]
        record = Record(
            number=planned.number if planned.number >= 0 else self._next_number(),
            class_name=kind.name,
            kind=kind.kind,
            model=kind.model,
            tenant=kind.tenant,
            conversation=conversation.number,
            turn=turn,
            intended_s=intended_s,
            asked_input=planned.input_tokens,
            asked_output=planned.output_tokens,
            worker=self.worker,
        )
        progress = self.progress
        progress.sent += 1
        progress.in_flight += 1
        has_next = turn + 1 < len(conversation.turns)
        try:
            answer = self.client.ask(
                prepared.request, record, keep_text=has_next, expected=prepared.expected
            )
            if has_next:
                prepared.turns.answered(answer.text)
        finally:
            progress.in_flight -= 1
            progress.done += 1
            progress.ok += record.is_ok
            self.sink(record)
        return record.is_ok

    def _prepare(
        self, conversation: Conversation, turn: int, turns: Turns | None = None
    ) -> _Prepared:
        """Everything up to the bytes, before the time comes."""
        kind = self._classes[conversation.class_name]
        turns = turns or Turns()
        path, body = self.composer.compose(kind, conversation, turn, turns)
        headers = self._headers[kind.name]
        request = self.client.request_bytes(path, orjson.dumps(body), headers)
        return _Prepared(request, turns, Expected.of(path, body))

    def _headers_of(self, kind: ClassConfig) -> dict[str, str]:
        variable = self.scenario.target.keys.get(kind.tenant)
        key = self.environ.get(variable) if variable else None
        return {"authorization": f"Bearer {key}"} if key else {}

    def _next_number(self) -> int:
        self._count += 1
        return self._count


@dataclass(slots=True)
class _Prepared:
    request: bytes
    turns: Turns
    expected: Expected


def _sleep_until(at_s: float, clock: Callable[[], float]) -> None:
    """The loop's timers are a fraction of a millisecond late; the last of it is spent awake."""
    while (left_s := at_s - clock()) > SPIN_S:
        gevent.sleep(left_s - SPIN_S)
    until = time.perf_counter() + at_s - clock()
    while time.perf_counter() < until:
        pass
