"""Requests without end, made by a seeded generator: valid ones, and what becomes of them by small changes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from loadtests.hostile.target import CHAT, Target
from serving import api

_PATHS = (
    *[CHAT] * 5,
    api.COMPLETIONS,
    api.RESPONSES,
    api.MESSAGES,
    api.EMBEDDINGS,
    api.SCORE,
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 2**70, 0.5, -0.0, 1e308),
    *(
        "",
        "a",
        "\0",
        "\ud7ff",
        "é" * 100,
        "x" * 5000,
        [],
        {},
        [[]],
        [None],
        [{}],
        {"": ""},
        {"type": "a"},
    ),
)
_FIELDS = (
    *("model", "messages", "prompt", "input", "max_tokens", "stream", "n", "stop", "tools", "seed"),
    *(
        "tool_choice",
        "response_format",
        "logprobs",
        "temperature",
        "top_p",
        "stream_options",
        "user",
    ),
    *("reasoning", "text", "system", "thinking", "dimensions", "encoding_format", "cache_salt"),
)
_LINES = (
    *(
        "connection: close",
        "connection: keep-alive, upgrade",
        "upgrade: h2c",
        "expect: 100-continue",
    ),
    *(
        "x-comptoir-deadline-ms: 500",
        "x-comptoir-deadline-ms: x",
        "x-comptoir-session: é",
        "te: trailers",
    ),
    *(
        "content-encoding: gzip",
        "transfer-encoding: chunked",
        "content-length: 7",
        "accept: */*",
        "x: " + "y" * 999,
    ),
)


def requests(target: Target, seed: int) -> Iterator[tuple[bytes, bool]]:
    """Requests as bytes, the same for the same seed, and whether each is framed as RFC 9112 wants."""
    draw = random.Random(seed)
    while True:
        path = draw.choice(_PATHS)
        body = json.dumps(_body(draw, target)).encode()
        lines = draw.sample(_LINES, draw.choice((0, 0, 0, 1, 2)))
        is_framed = not any(
            line.startswith(("content-length", "transfer-encoding", "content-encoding", "expect"))
            for line in lines
        )
        request = target.post(body, *lines, path=path)
        change = draw.choice(_CHANGES)
        if change is None:
            yield request, is_framed
        else:
            yield change(draw, request), False


def _body(draw: random.Random, target: Target) -> Any:
    body = dict(target.chat_fields(stream=draw.random() < 0.3, max_tokens=draw.randint(1, 5)))
    for _ in range(draw.choice((0, 0, 0, 1, 1, 2, 5))):
        _put(draw, body)
    return body


def _put(draw: random.Random, body: dict[str, Any]) -> None:
    """Change one value, at the top or anywhere below."""
    node: Any = body
    while True:
        if isinstance(node, dict):
            name = draw.choice((*node, *_FIELDS)) if node is body else draw.choice((*node, "type"))
            inner = node.get(name)
            if isinstance(inner, dict | list) and inner and draw.random() < 0.6:
                node = inner
                continue
            node[name] = _value(draw)
        else:
            index = draw.randrange(len(node))
            if isinstance(node[index], dict | list) and node[index] and draw.random() < 0.6:
                node = node[index]
                continue
            node[index] = _value(draw)
        return


def _value(draw: random.Random) -> Any:
    value = draw.choice(_VALUES)
    # A copy: what is put into it later must not be in the next request too.
    return json.loads(json.dumps(value))


def _cut(draw: random.Random, request: bytes) -> bytes:
    return request[: draw.randrange(len(request))]


def _flip(draw: random.Random, request: bytes) -> bytes:
    at = draw.randrange(len(request))
    return request[:at] + bytes([draw.randrange(256)]) + request[at + 1 :]


def _insert(draw: random.Random, request: bytes) -> bytes:
    at = draw.randrange(len(request))
    return (
        request[:at]
        + draw.choice((b"\r\n", b"\n", b"\0", b"\xff", b" ", b"\r\n\r\n"))
        + request[at:]
    )


def _twice(draw: random.Random, request: bytes) -> bytes:
    return request + request[: draw.randrange(len(request))]


_Change = Callable[[random.Random, bytes], bytes]
_CHANGES: tuple[_Change | None, ...] = (None, None, None, None, _cut, _flip, _insert, _twice)
