"""Requests as far as they matter here, and answers as HTTP; what an answer looks like is in `shapes`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from serving import api

Kind = Literal["chat", "completion", "response", "message", "embedding"]
KINDS: dict[bytes, Kind] = {
    api.CHAT.encode(): "chat",
    api.COMPLETIONS.encode(): "completion",
    api.RESPONSES.encode(): "response",
    api.MESSAGES.encode(): "message",
    api.EMBEDDINGS.encode(): "embedding",
}
# What a kind of request needs to be a list.
_LISTS: dict[Kind, str] = {"chat": "messages", "message": "messages"}
DEFAULT_TOKENS = 16
MAX_TOKENS = 1_000_000
_REASONS = {200: b"OK", 400: b"Bad Request", 404: b"Not Found", 500: b"Internal Server Error"}
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


class BadRequest(Exception):
    """A request that cannot be answered; the message says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for. `inputs` and `as_base64` are for embeddings."""

    kind: Kind
    model: str
    prompt_tokens: int
    output_tokens: int
    stream: bool = False
    include_usage: bool = False
    inputs: int = 1
    as_base64: bool = False


def parse(kind: Kind, data: bytes) -> Asked:
    """Read a body. Keys that change nothing here, `ignore_eos` among them, may be there.

    Every answer has exactly `max_tokens` tokens; there is no end of sequence that could be ignored or not.

    Raises:
        BadRequest: it is not JSON, or a key that is needed has the wrong shape.
    """
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise BadRequest("the body is not JSON") from None
    if not isinstance(body, dict):
        raise BadRequest("the body is not an object")
    model = str(body.get("model", ""))
    if kind == "embedding":
        given = body.get("input", "")
        several = isinstance(given, list) and bool(given) and not isinstance(given[0], int)
        return Asked(
            kind,
            model,
            prompt_tokens=_count(given),
            output_tokens=0,
            inputs=len(given) if several else 1,
            as_base64=body.get("encoding_format") == "base64",
        )
    needed = _LISTS.get(kind)
    if needed and not isinstance(body.get(needed), list):
        raise BadRequest(f"{needed}: must be a list")
    tokens = next((body[name] for name in api.OUTPUT_LIMITS if body.get(name)), DEFAULT_TOKENS)
    if not isinstance(tokens, int) or not 1 <= tokens <= MAX_TOKENS:
        raise BadRequest(f"max_tokens: must be from 1 to {MAX_TOKENS}")
    options = body.get("stream_options")
    prompt = next((body[name] for name in ("prompt", "messages", "input") if name in body), "")
    return Asked(
        kind,
        model,
        prompt_tokens=_count(prompt),
        output_tokens=tokens,
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def _count(given: Any) -> int:
    """Tokens: token ids are counted, of text the words; messages are the text in them."""
    match given:
        case str():
            return len(given.split())
        case [int(), *_]:
            return len(given)
        case list():
            return sum(_count(one) for one in given)
        case {"content": content}:
            return _count(content)
        case {"text": text}:
            return _count(text)
        case _:
            return 0


# ---- answers ---------------------------------------------------------------------------------------------


def simple(status: int, body: bytes, content_type: bytes = b"application/json") -> bytes:
    """An answer with a length."""
    return (
        b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
        % (status, _REASONS[status], content_type, len(body))
    ) + body


def error(status: int, message: str) -> bytes:
    """An error as OpenAI and vLLM send it."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    fields = {"message": message, "type": kind, "param": None, "code": status}
    return simple(status, orjson.dumps({"error": fields}))


def models(name: str) -> bytes:
    """The list of the one model."""
    model = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "reference"}
    return simple(200, orjson.dumps({"object": "list", "data": [model]}))


def metrics(model: str, gauges: dict[str, float], counters: dict[str, float]) -> bytes:
    """Prometheus' text format, under vLLM's names and labels."""
    label = model.replace("\\", "\\\\").replace('"', '\\"')
    lines = [
        f'# TYPE vllm:{name} {kind}\nvllm:{name}{{engine="0",model_name="{label}"}} {value}\n'
        for kind, values in (("gauge", gauges), ("counter", counters))
        for name, value in values.items()
    ]
    return simple(200, "".join(lines).encode(), b"text/plain; version=0.0.4; charset=utf-8")
