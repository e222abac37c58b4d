"""FakeEngine: a deterministic stand-in for vLLM's HTTP app, for fast tests and gateway benchmarks.

It echoes no prompt: its n-th token is the n-th of a fixed list. No vLLM, no Ray.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from serving import api

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass
class FakeEngine:
    """How the engine behaves, and what it has seen.

    Attributes:
        interval_s: time between two chunks.
        first_token_s: time before the first.
        status: answer everything with this status instead, and `error_message` in the body.
        break_after: cut the connection after so many chunks of a stream.
        error_after: send vLLM's error event after so many chunks of a stream.
        keeps: what a prefill engine says of a prompt that it has computed and keeps.
    """

    interval_s: float = 0.0
    first_token_s: float = 0.0
    status: int = 200
    error_message: str = "the fake engine refuses"
    break_after: int | None = None
    error_after: int | None = None
    keeps: dict[str, Any] = field(
        default_factory=lambda: {"do_remote_prefill": True, "remote_block_ids": [[1, 2]]}
    )
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    running: int = 0
    aborted: int = 0
    keep_bodies: bool = True

    def asgi(self) -> Starlette:
        """The ASGI application."""
        routes = [Route(path, self._answer, methods=["POST"]) for path in api.ENDPOINTS]
        return Starlette(routes=routes)

    async def _answer(self, request: Request) -> Response:
        body = orjson.loads(await request.body())
        if self.keep_bodies:
            self.bodies.append(body)
            self.headers.append(dict(request.headers))
        if self.status != 200:
            error = {"message": self.error_message, "type": "BadRequestError", "code": self.status}
            return JSONResponse({"error": error | {"param": None}}, self.status)
        limits = (body[name] for name in api.OUTPUT_LIMITS if body.get(name))
        tokens = int(next(limits, 16))
        if body.get("stream"):
            return StreamingResponse(self._stream(body, tokens), media_type="text/event-stream")
        if not await self._work(request, self.first_token_s + self.interval_s * tokens):
            return Response(status_code=499)
        if request.url.path == api.EMBEDDINGS:
            return JSONResponse(self._embeddings(body))
        return JSONResponse(self._completion(body, tokens))

    async def _work(self, request: Request, seconds: float) -> bool:
        """Take this long; stop, as vLLM does, when the client is gone. Returns whether it stayed."""
        self.running += 1
        ends = time.monotonic() + seconds
        try:
            while (left := ends - time.monotonic()) > 0:
                await asyncio.sleep(min(left, 0.02))
                if await request.is_disconnected():
                    self.aborted += 1
                    return False
            return True
        finally:
            self.running -= 1

    async def _stream(self, body: dict[str, Any], tokens: int) -> Any:
        self.running += 1
        done = False
        try:
            await asyncio.sleep(self.first_token_s)
            for index in range(tokens):
                if self.error_after == index:
                    yield b'data: {"error": {"message": "secret", "type": "x", "code": 500}}\n\n'
                    return
                if self.break_after == index:
                    raise ConnectionResetError
                if index:
                    await asyncio.sleep(self.interval_s)
                yield self._event(body, {"content": WORDS[index % 10] + " "}, None)
            yield self._event(body, {}, "length")
            if (body.get("stream_options") or {}).get("include_usage"):
                chunk = self._head(body, "chat.completion.chunk") | {"choices": []}
                yield _sse(chunk | {"usage": _usage(tokens)})
            yield b"data: [DONE]\n\n"
            done = True
        finally:
            self.running -= 1
            if not done:
                self.aborted += 1

    def _event(self, body: dict[str, Any], delta: dict[str, str], finish: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _sse(self._head(body, "chat.completion.chunk") | {"choices": [choice]})

    def _completion(self, body: dict[str, Any], tokens: int) -> dict[str, Any]:
        content = " ".join(WORDS[index % 10] for index in range(tokens)) + " "
        message = {"role": "assistant", "content": content}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        head = self._head(body, "chat.completion")
        asked = body.get("kv_transfer_params") or {}
        kept = {"kv_transfer_params": self.keeps if asked.get("do_remote_decode") else None}
        return head | {"choices": [choice], "usage": _usage(tokens)} | kept

    def _embeddings(self, body: dict[str, Any]) -> dict[str, Any]:
        inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
        data = [
            {"object": "embedding", "index": index, "embedding": [float(index), 1.0]}
            for index in range(len(inputs))
        ]
        return {"object": "list", "model": body["model"], "data": data, "usage": _usage(0)}

    def _head(self, body: dict[str, Any], kind: str) -> dict[str, Any]:
        return {"id": "fake-1", "object": kind, "created": 0, "model": body.get("model")}


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens}


def _sse(chunk: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"
