"""The engine of the reference server: plans each answer on arrival, sends it on time, notes when."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from typing import Any, Protocol

import orjson

from loadtests.reference import messages, shapes, wayward
from loadtests.reference.config import ReferenceConfig
from loadtests.reference.plans import planner
from loadtests.reference.truth import Truth
from loadtests.reference.wheel import EngineClock, Wheel


class Wire(Protocol):
    """The connection of a request, to those who answer it."""

    reply: Reply | None

    def write(self, data: bytes) -> None:
        """Hand it to the kernel."""

    def replied(self) -> None:
        """The answer is complete."""

    def cut(self) -> None:
        """Leave in the middle of it."""


class Reference:
    """The state that all connections share."""

    def __init__(self, config: ReferenceConfig) -> None:
        self.config = config
        self.clock = EngineClock()
        self.wheel = Wheel(self.clock)
        self.answers: set[Reply] = set()
        self.truths: deque[Truth] = deque(maxlen=config.keep)
        self.freezes: list[tuple[float, float]] = []
        self._plan = planner(config)
        self._faults = random.Random(config.seed)
        self._arrived = self._prompt_tokens = 0
        self.generation_tokens = 0

    def freeze(self, in_s: float, for_s: float) -> None:
        """Freeze for a time, some seconds from now."""
        loop = asyncio.get_running_loop()
        loop.call_later(in_s, lambda: self.freezes.append(self.clock.freeze(for_s)))

    def ask(self, connection: Wire, asked: messages.Asked, request_id: str, end: str = "") -> None:
        """Plan the answer and begin it; `end` names one of `wayward`'s, if it is to end as none should."""
        arrival_s = time.perf_counter()
        number = self._arrived
        self._arrived += 1
        # Always the same draws, so that a share does not change which requests another one meets.
        draw, place = self._faults.random(), self._faults.random()
        truth = Truth(request_id or str(number), number, asked.stream, arrival_s, arrival_s)
        truth.prompt_tokens = asked.prompt_tokens
        if draw < self.config.error_share:
            connection.write(messages.error(500, "drawn by error-share"))
            truth.status, truth.error, truth.end_s = 500, "http", time.perf_counter()
            self.truths.append(truth)
            connection.replied()
            return
        self._prompt_tokens += asked.prompt_tokens
        tokens = max(1, asked.output_tokens)
        # Everything is planned in the engine's time; truths are in everybody's.
        plan = self._plan(arrival_s - self.clock.frozen_s, asked.prompt_tokens, tokens)
        truth.start_s = plan.start_s + self.clock.frozen_s
        breaks = draw >= 1 - self.config.break_share
        possible = wayward.ways(asked)
        if (
            not end
            and self.config.end in possible
            and 0 <= draw - self.config.error_share < self.config.end_share
        ):
            end = self.config.end
        make = Stream if asked.stream else Whole
        reply: Reply = make(self, connection, asked, truth, plan.start_s, plan.due_s)
        if end:
            reply = Wayward(end, self, connection, asked, truth, plan.start_s, plan.due_s)
        reply.cut_at = int(place * tokens) if breaks else -1
        self.answers.add(reply)
        connection.reply = reply
        reply.begin()

    # ---- what it tells -----------------------------------------------------------------------------------

    def metrics(self) -> bytes:
        """A few of vLLM's."""
        now_s = self.clock()
        running = [reply for reply in self.answers if reply.planned_start_s <= now_s]
        held = sum(reply.truth.prompt_tokens + reply.sent for reply in running)
        gauges = {
            "num_requests_running": float(len(running)),
            "num_requests_waiting": float(len(self.answers) - len(running)),
            "kv_cache_usage_perc": min(1.0, held / self.config.kv_tokens),
        }
        counters = {
            "prompt_tokens_total": float(self._prompt_tokens),
            "generation_tokens_total": float(self.generation_tokens),
        }
        return messages.metrics(self.config.model, gauges, counters)

    def told_truth(self) -> bytes:
        """All finished requests, a line each. Costly when there are many: ask after the load."""
        lines = b"".join(truth.as_line() for truth in self.truths)
        return messages.simple(200, lines, b"application/x-ndjson")

    def forget(self) -> bytes:
        """Begin a new list of finished requests."""
        self.truths.clear()
        return messages.simple(200, b"{}")

    def told_freezes(self) -> bytes:
        """The periods in which it was frozen."""
        return messages.simple(200, orjson.dumps(self.freezes))

    def asked_to_freeze(self, body: bytes) -> bytes:
        """`{"in_s": 0.5, "for_s": 2}`."""
        try:
            values = orjson.loads(body)
            in_s, for_s = float(values.get("in_s", 0)), float(values["for_s"])
        except (ValueError, TypeError, KeyError, AttributeError):
            in_s = for_s = -1
        if not (0 <= in_s <= 86_400 and 0 < for_s <= 3600):
            return messages.error(400, "in_s and for_s: must be seconds, at least 0 and above 0")
        self.freeze(in_s, for_s)
        return messages.simple(200, orjson.dumps({"in_s": in_s, "for_s": for_s}))


class Reply:
    """An answer under way."""

    def __init__(
        self,
        reference: Reference,
        connection: Wire,
        asked: messages.Asked,
        truth: Truth,
        planned_start_s: float,
        due_s: list[float],
    ) -> None:
        self._reference, self._connection = reference, connection
        self._asked, self._due_s = asked, due_s
        self.truth, self.planned_start_s = truth, planned_start_s
        self.sent = 0
        # The token instead of which the connection is cut.
        self.cut_at = -1
        self.is_over = False

    def begin(self) -> None:
        """Send what comes at once, and take a place on the wheel."""
        raise NotImplementedError

    def emit(self) -> None:
        """Send what is due."""
        raise NotImplementedError

    def end(self, error: str = "", *, cut: bool | None = None) -> None:
        """Record the request's end; nothing more is sent. After an error the connection is cut."""
        self.is_over = True
        self.truth.error, self.truth.end_s = error, time.perf_counter()
        self.truth.output_tokens = self.sent
        self._reference.answers.discard(self)
        self._reference.truths.append(self.truth)
        self._connection.replied()
        if bool(error) if cut is None else cut:
            self._connection.cut()


class Stream(Reply):
    """Token by token."""

    def begin(self) -> None:
        made = shapes.frames(self._asked, self.truth.number)
        self._token, self._after = made.token, made.after
        if self._reference.config.early_role:
            self._first = made.token
            self._connection.write(messages.STREAM_HEAD + made.before)
        else:
            # As vLLM: the headers at once, the role together with the first token.
            self._first = made.before + made.token
            self._connection.write(messages.STREAM_HEAD)
        self._reference.wheel.put(self._due_s[0], self)

    def emit(self) -> None:
        if self.is_over:
            return
        sent, due_s, truth = self.sent, self._due_s, self.truth
        if sent == self.cut_at:
            self.end("broken")
            return
        frame = self._token if sent else self._first
        is_last = sent + 1 == len(due_s)
        if is_last:
            frame += self._after
        now_s = time.perf_counter()
        truth.tokens_s.append(now_s)
        truth.late_ms.append((now_s - self._reference.clock.frozen_s - due_s[sent]) * 1000)
        self._connection.write(frame)
        self.sent = sent + 1
        self._reference.generation_tokens += 1
        if is_last:
            self.end()
        else:
            self._reference.wheel.put(due_s[sent + 1], self)


class Whole(Reply):
    """All at once, when the last token would have come."""

    def begin(self) -> None:
        self._reference.wheel.put(self._due_s[-1], self)

    def emit(self) -> None:
        if self.is_over:
            return
        if self.cut_at >= 0:
            self.end("broken")
            return
        self.sent = self._asked.output_tokens
        self._reference.generation_tokens += self.sent
        self._connection.write(shapes.whole(self._asked, self.truth.number))
        self.end()


class Wayward(Reply):
    """One of the answers that no server should give, when the first token would have come."""

    def __init__(self, name: str, *args: Any) -> None:
        super().__init__(*args)
        self._name = name
        self._ending = wayward.ways(self._asked)[name](self._asked, self.truth.number)

    def begin(self) -> None:
        self._reference.wheel.put(self._due_s[0], self)

    def emit(self) -> None:
        if self.is_over or self._ending.then == "wait":
            return
        self._connection.write(self._ending.data)
        self.end(self._name, cut=self._ending.then == "cut")
