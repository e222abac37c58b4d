"""The engine behind our own target: the null engine, and answers of any length as fast as they are read.

Run as a process: `python -m loadtests.hostile.engine TOKEN INTERVAL_MS`; it prints its port.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sys

import orjson
import uvloop

from loadtests.bench.null.engine import (
    CHUNK_FRAME,
    FINISH_FRAME,
    LAST_FRAME,
    STREAM_HEAD,
    NullConnection,
    NullEngine,
)
from serving.listener import UNSENT_BYTES

# From so many tokens on, an answer has no pace.
LONG_TOKENS = 10_000
_AT_ONCE = 256


class HostileConnection(NullConnection):
    """Like the null engine's, but a long answer comes as fast as the gateway reads it."""

    _is_paused = False

    def _answer(self) -> None:
        try:
            tokens = int(orjson.loads(self._body).get("max_tokens", 0))
        except (ValueError, TypeError, AttributeError):
            tokens = 0
        if tokens < LONG_TOKENS:
            super()._answer()
            return
        self._transport.write(STREAM_HEAD)
        self._left = tokens
        self._write_on()

    def _write_on(self) -> None:
        while self._left and not self._is_paused and not self._transport.is_closing():
            count = min(self._left, _AT_ONCE)
            self._left -= count
            self._transport.write(CHUNK_FRAME * count)
            if not self._left:
                self._transport.write(FINISH_FRAME + LAST_FRAME)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        if self._left:
            self._write_on()


async def serve(token: str, interval_ms: float) -> None:
    """Listen on a free loopback port until cancelled, and print the port."""
    engine = NullEngine(token.encode(), interval_ms / 1000)
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    # As a replica's listener: the kernel would take megabytes for each answer that nobody reads.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    server = await asyncio.get_running_loop().create_server(
        lambda: HostileConnection(engine), sock=listening
    )
    gc.freeze()
    print(listening.getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], float(sys.argv[2])))
