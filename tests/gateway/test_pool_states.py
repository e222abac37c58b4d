"""In whatever order things happen: connections in the pool are clean, and everybody gets their own answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving.config.admission import BreakerConfig, RetryConfig
from serving.discovery.directory import Directory, Model, Replica
from serving.errors import ComptoirError
from serving.gateway.answer_reader import State
from serving.gateway.connection import ReplicaConnection
from serving.gateway.forwarding import Forwarder
from serving.gateway.replica_request import ReplicaRequest
from serving.gateway.replica_response import ReplicaResponse
from serving.gateway.upstream import Upstream
from serving.replica_facts import ModelCard
from serving.settings import GatewayConfig
from tests.gateway.leaping import LeapingLoop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
# What a replica may say after an answer: mostly nothing.
MORE = [b"", b"", b"", b"x", HEAD + END]


class Wire:
    """The transport of one connection, and the replica at its other end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: ReplicaConnection) -> None:
        self.loop, self.protocol = loop, protocol
        self.reading, self.closing, self.is_lost = True, False, False
        self.unsent_bytes = 0
        # What the replica has been asked on this connection, and how far its answer to the last one is.
        self.asked: list[str] = []
        self.has_head, self.owes = False, False

    def write(self, data: bytes) -> None:
        (request_id,) = re.findall(rb"x-request-id: (\S+)", data)
        assert not self.owes, "a request before the last one was answered"
        assert not self.unsent_bytes, "a request behind what is left of another"
        self.asked.append(request_id.decode())
        self.has_head, self.owes = False, True

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def get_extra_info(self, name: str) -> Any:
        return Nothing() if name == "socket" else None

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        if not self.closing:
            self.closing = True
            self.loop.call_soon(self.lose, None)

    close = abort

    def lose(self, error: Exception | None) -> None:
        if not self.is_lost:
            self.closing = self.is_lost = True
            self.protocol.connection_lost(error)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def say(self, data: bytes) -> None:
        self.protocol.data_received(data)


class Nothing:
    """A socket of which the kernel says nothing."""

    def setsockopt(self, *args: Any) -> None:
        """Nothing to set."""


class WireLoop(LeapingLoop):
    """Connections of this loop lead to a `Wire` each."""

    def __init__(self) -> None:
        super().__init__()
        self.wires: list[Wire] = []

    async def create_connection(  # type: ignore[override]
        self, factory: Callable[[], ReplicaConnection], host: str, port: int
    ) -> tuple[Wire, ReplicaConnection]:
        await asyncio.sleep(0)
        wire = Wire(self, factory())
        self.wires.append(wire)
        wire.protocol.connection_made(wire)  # type: ignore[arg-type]
        return wire, wire.protocol


class Client:
    """One request, what it has got, and what its client does in each callback."""

    def __init__(self, request_id: str, *, is_slow: bool) -> None:
        self.request_id = request_id
        self.is_slow = is_slow
        self.task: asyncio.Task[ReplicaResponse] | None = None
        self.sent: ReplicaResponse | None = None
        self.got = b""
        self.ends: list[Exception | None] = []
        self.is_piped = self.is_over = self.has_paused = False

    def receive(self, data: bytes) -> None:
        assert not self.ends
        assert not self.is_over
        self.got += data
        if self.is_slow and self.sent is not None:
            self.has_paused = True
            self.sent.answer.pause()

    def end(self, error: Exception | None) -> None:
        assert not self.ends
        self.ends.append(error)


class Pools(RuleBasedStateMachine):
    """Two replicas of one model; clients and replicas do what they like."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = WireLoop()
        asyncio.set_event_loop(self.loop)
        self.clients: list[Client] = []
        self.count = 0
        self.do(self._begin())

    async def _begin(self) -> None:
        self.upstream = Upstream(
            connect_timeout_s=1.0, response_timeout_s=600.0, pause_timeout_s=90.0
        )
        replicas = tuple(Replica(f"r{n}", f"http://r{n}:1", "token") for n in range(2))
        directory = Directory([Model("m", ModelCard(), replicas)])
        # Breakers and budgets have tests of their own.
        config = GatewayConfig(
            breaker=BreakerConfig(consecutive_failures=10_000, min_requests=100_000),
            retries=RetryConfig(min_per_s=1000),
        )
        self.forwarder = Forwarder(lambda: directory, self.upstream, config, clock=self.loop.time)

    def do(self, what: Coroutine[Any, Any, None] | None = None) -> None:
        """Run this, and then everything that follows at once."""

        async def settled() -> None:
            if what is not None:
                await what
            for _ in range(8):
                await asyncio.sleep(0)

        self.loop.run_until_complete(settled())
        for client in self.clients:
            self._look(client)

    def _look(self, client: Client) -> None:
        if client.task is None or not client.task.done():
            return
        task, client.task = client.task, None
        if task.cancelled() or isinstance(task.exception(), ComptoirError):
            client.is_over = True
        else:
            client.sent = task.result()
            client.got += client.sent.answer.first

    # ---- who does something ------------------------------------------------------------------------------

    @property
    def owing(self) -> list[Wire]:
        return [w for w in self.loop.wires if w.owes and not w.closing and w.reading]

    @property
    def asking(self) -> list[Client]:
        return [client for client in self.clients if not client.is_over]

    @property
    def answered(self) -> list[Client]:
        return [client for client in self.asking if client.sent is not None]

    # ---- clients -----------------------------------------------------------------------------------------

    @rule(is_slow=st.booleans())
    def ask(self, is_slow: bool) -> None:
        self.count += 1
        client = Client(f"id{self.count}", is_slow=is_slow)
        request = ReplicaRequest("m", "/v1/x", b"{}", client.request_id)
        client.task = self.loop.create_task(self.forwarder.open(request))
        self.clients.append(client)
        self.do()

    @rule(is_slow=st.booleans(), listens=st.booleans(), unsent=st.sampled_from([0, 0, 9]))
    def ask_and_hear(self, is_slow: bool, listens: bool, unsent: int) -> None:
        self.ask(is_slow)
        client = self.clients[-1]
        for wire in self.owing:
            if wire.asked[-1] == client.request_id:
                wire.unsent_bytes = unsent
                self._say(wire, pieces=1)
        if listens and client.sent is not None:
            client.is_piped = True
            client.sent.answer.pipe(client)

    @precondition(lambda self: self.answered)
    @rule(data=st.data())
    def listen(self, data: st.DataObject) -> None:
        client = data.draw(st.sampled_from(self.answered))
        if client.sent is not None and not client.is_piped:
            client.is_piped = True
            client.sent.answer.pipe(client)
        self.do()

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), resume=st.booleans())
    def read(self, data: st.DataObject, resume: bool) -> None:
        """Also one whose answer is over: late callbacks must not reach the next request."""
        client = data.draw(st.sampled_from(self.clients))
        if client.sent is not None:
            client.has_paused |= not client.is_over and not resume
            (client.sent.answer.resume if resume else client.sent.answer.pause)()
        self.do()

    @precondition(lambda self: self.asking)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self._leave(data.draw(st.sampled_from(self.asking)))
        self.do()

    def _leave(self, client: Client) -> None:
        if client.task is not None:
            client.task.cancel()
        elif client.sent is not None:
            client.is_over = True
            client.sent.close()

    # ---- replicas ----------------------------------------------------------------------------------------

    @precondition(lambda self: self.owing)
    @rule(data=st.data(), pieces=st.integers(0, 3), interim=st.booleans())
    def answer(self, data: st.DataObject, pieces: int, interim: bool) -> None:
        wire = data.draw(st.sampled_from(self.owing))
        self._say(wire, pieces=pieces, interim=interim)

    @precondition(lambda self: self.owing)
    @rule(data=st.data(), pieces=st.integers(0, 1), more=st.sampled_from(MORE))
    def end(self, data: st.DataObject, pieces: int, more: bytes) -> None:
        wire = data.draw(st.sampled_from(self.owing))
        self._say(wire, pieces=pieces, ends=True, more=more)
        assert wire.closing or not more

    def _say(
        self,
        wire: Wire,
        *,
        pieces: int = 0,
        interim: bool = False,
        ends: bool = False,
        more: bytes = b"",
    ) -> None:
        said = b""
        if not wire.has_head:
            said += b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * interim + HEAD
            wire.has_head = True
        piece = wire.asked[-1].encode() + b";"
        said += (b"%x\r\n%b\r\n" % (len(piece), piece)) * pieces
        if ends:
            said += END
            wire.owes = False
        wire.say(said + more)
        self.do()

    @precondition(lambda self: any(w.protocol.state is State.IDLE for w in self.loop.wires))
    @rule(data=st.data(), said=st.sampled_from([b"x", HEAD + END]))
    def speak_unasked(self, data: st.DataObject, said: bytes) -> None:
        idle = [w for w in self.loop.wires if w.protocol.state is State.IDLE and not w.closing]
        if idle:
            wire = data.draw(st.sampled_from(idle))
            wire.say(said)
            assert wire.closing
        self.do()

    @precondition(lambda self: self.loop.wires)
    @rule(data=st.data(), error=st.sampled_from([None, ConnectionResetError(), TimeoutError()]))
    def hang_up(self, data: st.DataObject, error: Exception | None) -> None:
        wire = data.draw(st.sampled_from(self.loop.wires))
        # Nobody hears of it who does not read.
        if wire.reading:
            wire.owes = False
            wire.lose(error)
        self.do()

    @rule(seconds=st.sampled_from([0.1, 1.0, 30.0, 61.0, 91.0, 601.0]))
    def wait(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    # ---- what always holds -------------------------------------------------------------------------------

    @invariant()
    def idle_connections_are_clean(self) -> None:
        pools = self.upstream._pools.values()
        for pool in pools:
            for connection in pool._idle:
                wire: Any = connection._transport
                assert connection.state is State.IDLE
                assert wire.reading
                assert not wire.unsent_bytes
                assert not wire.owes
                assert connection._receiver is connection._waiter is connection._timer is None
                assert not connection._pieces
        assert self.upstream._idle_in_all.value == sum(pool.idle for pool in pools)

    @invariant()
    def everybody_gets_their_own_answer(self) -> None:
        for client in self.clients:
            assert set(client.got.split(b";")) <= {b"", client.request_id.encode()}

    @invariant()
    def nobody_pauses_the_answer_of_another(self) -> None:
        clients = {client.request_id: client for client in self.clients}
        for wire in self.loop.wires:
            if not wire.reading and not wire.closing:
                client = clients[wire.asked[-1]]
                assert client.has_paused
                assert not client.is_over

    @invariant()
    def open_requests_are_counted(self) -> None:
        assert all(count > 0 for count in self.forwarder.in_flight.values())
        answering = sum(client.sent is not None for client in self.asking)
        assert self.forwarder.in_flight.total() >= answering

    @invariant()
    def nobody_waits_for_a_connection_that_is_gone(self) -> None:
        for pool in self.upstream._pools.values():
            known = {wire.protocol for wire in self.loop.wires if not wire.is_lost}
            assert pool.connections <= known

    def teardown(self) -> None:
        for client in self.asking:
            self._leave(client)
        self.do()
        assert not self.forwarder.in_flight
        pools = list(self.upstream._pools.values())
        assert all(len(pool.connections) == pool.idle for pool in pools)
        self.do(self.upstream.stop())
        assert all(pool.is_unused for pool in pools)
        assert all(wire.is_lost for wire in self.loop.wires)
        assert self.upstream._idle_in_all.value == 0
        timers: Any = self.loop
        assert [timer for timer in timers._scheduled if not timer.cancelled()] == []
        self.loop.close()


Pools.TestCase.settings = settings(
    deadline=None,
    max_examples=60,
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
)
test_pools = Pools.TestCase
