"""The null engine: answers a replica's chat endpoint with fixed bytes, at a pace, for almost no CPU.

Run as a process: `python -m loadtests.bench.null.engine TOKEN INTERVAL_MS`; it prints its port.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from dataclasses import dataclass, field

import httptools
import orjson
import uvloop

from serving import api

ENDPOINTS = frozenset({api.CHAT.encode(), api.COMPLETIONS.encode()})
TOKEN_HEADER = b"x-comptoir-token"

# What vLLM writes: the length of a chunk is that of its own.
_CHUNK = (
    b'data: {"id":"chatcmpl-6f1e2b0a4c5d4f7e8a9b0c1d2e3f4a5b","object":"chat.completion.chunk",'
    b'"created":1764072000,"model":"null","choices":[{"index":0,"delta":{"content":" word"},'
    b'"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
)
_FINISH = _CHUNK.replace(b'{"content":" word"}', b'{"content":""}').replace(
    b'"finish_reason":null', b'"finish_reason":"length","stop_reason":null'
)
_DONE = b"data: [DONE]\n\n"
_WHOLE = orjson.dumps(
    {
        "id": "chatcmpl-6f1e2b0a4c5d4f7e8a9b0c1d2e3f4a5b",
        "object": "chat.completion",
        "created": 1764072000,
        "model": "null",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": " word" * 64,
                    "refusal": None,
                    "annotations": None,
                    "audio": None,
                    "function_call": None,
                    "tool_calls": [],
                    "reasoning": None,
                },
                "logprobs": None,
                "finish_reason": "length",
                "stop_reason": None,
                "token_ids": None,
            }
        ],
        "service_tier": None,
        "system_fingerprint": None,
        "usage": {
            "prompt_tokens": 24,
            "total_tokens": 88,
            "completion_tokens": 64,
            "prompt_tokens_details": None,
        },
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "kv_transfer_params": None,
    }
)


def framed(data: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _simple(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        status,
        len(body),
        body,
    )


CHUNK_FRAME = framed(_CHUNK)
FINISH_FRAME = framed(_FINISH)
# `[DONE]` and the end of the body leave together, as uvicorn's last write does.
LAST_FRAME = framed(_DONE) + b"0\r\n\r\n"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
WHOLE_ANSWER = _simple(b"200 OK", _WHOLE)
UNAUTHORISED = _simple(b"401 Unauthorized", b"{}")
NOT_FOUND = _simple(b"404 Not Found", b"{}")
BAD_REQUEST = _simple(b"400 Bad Request", b"{}")
# Beside one event per token, a stream has one with the reason of its end and one that says `[DONE]`.
EXTRA_EVENTS = 2


@dataclass
class NullEngine:
    """The state that all connections share."""

    token: bytes
    interval_s: float = 0.02
    connections: set[NullConnection] = field(default_factory=set)

    def protocol(self) -> NullConnection:
        """A protocol for one more connection."""
        return NullConnection(self)


class NullConnection(asyncio.Protocol):
    """One connection: one request at a time, kept alive."""

    def __init__(self, engine: NullEngine) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._timer: asyncio.TimerHandle | None = None
        self._left = 0
        self._due_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._engine.connections.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.write(BAD_REQUEST)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    # ---- httptools' callbacks ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._is_known = False
        self._path = b""
        self._body = b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == TOKEN_HEADER:
            self._is_known = value == self._engine.token

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if not self._is_known:
            self._transport.write(UNAUTHORISED)
        elif self._path not in ENDPOINTS:
            self._transport.write(NOT_FOUND)
        else:
            self._answer()

    # ---- the answer --------------------------------------------------------------------------------------

    def _answer(self) -> None:
        try:
            body = orjson.loads(self._body)
            is_stream, self._left = bool(body.get("stream")), int(body.get("max_tokens", 16))
        except (ValueError, TypeError, AttributeError):
            self._transport.write(BAD_REQUEST)
            return
        if not is_stream:
            self._transport.write(WHOLE_ANSWER)
            return
        self._transport.write(STREAM_HEAD)
        self._due_s = self._loop.time()
        self._tick()

    def _tick(self) -> None:
        if not self._left:
            self._transport.write(FINISH_FRAME)
            self._transport.write(LAST_FRAME)
            return
        self._left -= 1
        self._transport.write(CHUNK_FRAME)
        # By the schedule, not by the last chunk: an engine that was late does not offer less.
        self._due_s += self._engine.interval_s
        self._timer = self._loop.call_at(self._due_s, self._tick)


async def serve(token: str, interval_ms: float) -> None:
    """Listen on a free loopback port until cancelled, and print the port."""
    engine = NullEngine(token.encode(), interval_ms / 1000)
    server = await asyncio.get_running_loop().create_server(
        engine.protocol, "127.0.0.1", 0, backlog=4096
    )
    gc.freeze()
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], float(sys.argv[2])))
