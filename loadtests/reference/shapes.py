"""The answers of the reference server, streamed and whole, in vLLM's formats.

The shapes: https://platform.openai.com/docs/api-reference (chat, completions, responses, embeddings) and
https://docs.anthropic.com/en/api/messages-streaming.
"""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from loadtests.reference.messages import Asked, Kind, simple

WORD = " word"
VECTOR = (0.5, -0.5, 0.5, -0.5)
LAST_CHUNK = b"0\r\n\r\n"
_PREFIXES: Mapping[Kind, str] = {
    "chat": "chatcmpl-",
    "completion": "cmpl-",
    "response": "resp_",
    "message": "msg_",
    "embedding": "embd-",
}
_OBJECTS: Mapping[Kind, str] = {"chat": "chat.completion", "completion": "text_completion"}
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Frames:
    """The pieces of a stream, each event in an HTTP chunk of its own, as uvicorn sends them.

    Before the first token (completions have nothing there), a token, the finish reason, the usage where it is
    an event of its own, and the event that ends the stream. The last chunk of HTTP is not among them.
    """

    before: bytes
    token: bytes
    finish: bytes
    usage: bytes
    done: bytes

    @property
    def after(self) -> bytes:
        """What comes after the last token, to the end of the answer."""
        return self.finish + self.usage + self.done + LAST_CHUNK


def frames(
    asked: Asked, number: int, tokens: int | None = None, reason: str | None = "length"
) -> Frames:
    """A stream's pieces.

    Args:
        tokens: that are sent; by default as many as were asked for.
        reason: why it ends, in the words of chats; None leaves it out.
    """
    sent = asked.output_tokens if tokens is None else tokens
    match asked.kind:
        case "response":
            return _response_frames(asked, number, sent, reason)
        case "message":
            return _message_frames(asked, number, sent, reason)
    return _chat_frames(asked, number, sent, reason)


def document(
    asked: Asked, number: int, tokens: int | None = None, reason: str | None = "length"
) -> Document:
    """An answer that is not streamed; `tokens` and `reason` as of `frames`."""
    made = asked.output_tokens if tokens is None else tokens
    return _DOCUMENTS[asked.kind](asked, number, made, reason)


def whole(asked: Asked, number: int) -> bytes:
    """An answer that is not streamed, as HTTP."""
    return simple(200, orjson.dumps(document(asked, number)))


def event(data: Document | bytes, name: str = "") -> bytes:
    """A server-sent event in an HTTP chunk of its own."""
    text = data if isinstance(data, bytes) else orjson.dumps(data)
    head = f"event: {name}\n".encode() if name else b""
    return chunk(head + b"data: " + text + b"\n\n")


def chunk(data: bytes) -> bytes:
    """An HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


# ---- chat completions, completions, embeddings -------------------------------------------------------


def _head(asked: Asked, number: int) -> Document:
    return {
        "id": f"{_PREFIXES[asked.kind]}{number:032x}",
        "created": int(time.time()),
        "model": asked.model,
    }


def _usage(asked: Asked, tokens: int) -> dict[str, int]:
    prompt = asked.prompt_tokens
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


def _chat_frames(asked: Asked, number: int, tokens: int, reason: str | None) -> Frames:
    is_chat = asked.kind == "chat"
    head = _head(asked, number)
    head["object"] = "chat.completion.chunk" if is_chat else "text_completion"

    def token(text: str, reason: str | None = None, **delta: str) -> bytes:
        choice: Document = {"index": 0}
        choice |= {"delta": delta | {"content": text}} if is_chat else {"text": text}
        choice |= {"logprobs": None, "finish_reason": reason}
        return event(head | {"choices": [choice]})

    usage = event(head | {"choices": [], "usage": _usage(asked, tokens)})
    return Frames(
        before=token("", role="assistant") if is_chat else b"",
        token=token(WORD),
        finish=token("", reason) if reason else b"",
        usage=usage if asked.include_usage else b"",
        done=event(b"[DONE]"),
    )


def _chat(asked: Asked, number: int, tokens: int, reason: str | None) -> Document:
    text = WORD * tokens
    choice: Document = {"index": 0, "logprobs": None, "finish_reason": reason}
    if asked.kind == "chat":
        choice["message"] = {"role": "assistant", "content": text}
    else:
        choice["text"] = text
    return _head(asked, number) | {
        "object": _OBJECTS[asked.kind],
        "usage": _usage(asked, tokens),
        "choices": [choice],
    }


def _embeddings(asked: Asked, number: int, tokens: int, reason: str | None) -> Document:
    vector: Any = list(VECTOR)
    if asked.as_base64:
        vector = base64.b64encode(struct.pack(f"<{len(VECTOR)}f", *VECTOR)).decode()
    items = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index in range(asked.inputs)
    ]
    head = _head(asked, number)
    return head | {"usage": _usage(asked, tokens), "object": "list", "data": items}


# ---- responses -------------------------------------------------------------------------------------------


def _response(asked: Asked, number: int, tokens: int, reason: str | None) -> Document:
    """`reason` as the API says it: with length it is incomplete, without one it has not ended."""
    text = {"type": "output_text", "text": WORD * tokens, "annotations": []}
    message = {
        "id": f"msg_{number:032x}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [text],
    }
    head = _head(asked, number)
    statuses = {
        "length": "incomplete",
        "stop": "completed",
        "abort": "cancelled",
        "error": "failed",
    }
    cut = {"reason": "max_output_tokens"} if reason == "length" else None
    return {
        "id": head["id"],
        "object": "response",
        "created_at": head["created"],
        "model": asked.model,
        "status": statuses[reason] if reason else None,
        "error": None,
        "incomplete_details": cut,
        "output": [message] if tokens else [],
        "usage": {
            "input_tokens": asked.prompt_tokens,
            "output_tokens": tokens,
            "total_tokens": asked.prompt_tokens + tokens,
            "input_tokens_details": {"cached_tokens": 0},
        },
    }


def _response_frames(asked: Asked, number: int, tokens: int, reason: str | None) -> Frames:
    def told(kind: str, **more: Any) -> bytes:
        return event({"type": kind} | more, kind)

    last = _response(asked, number, tokens, reason)
    kinds = {"length": "response.incomplete", "error": "response.failed"}
    begun = last | {"status": "in_progress", "output": [], "usage": None}
    place = {"item_id": f"msg_{number:032x}", "output_index": 0, "content_index": 0}
    return Frames(
        before=told("response.created", response=begun),
        token=told("response.output_text.delta", delta=WORD, logprobs=[], **place),
        finish=told(kinds.get(reason or "", "response.completed"), response=last),
        usage=b"",
        done=b"",
    )


# ---- messages --------------------------------------------------------------------------------------------

_STOPS = {"length": "max_tokens", "stop": "end_turn"}


def _message(asked: Asked, number: int, tokens: int, reason: str | None) -> Document:
    return {
        "id": _head(asked, number)["id"],
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "content": [{"type": "text", "text": WORD * tokens}] if tokens else [],
        "stop_reason": _STOPS.get(reason, reason) if reason else None,
        "stop_sequence": None,
        "usage": {"input_tokens": asked.prompt_tokens, "output_tokens": tokens},
    }


def _message_frames(asked: Asked, number: int, tokens: int, reason: str | None) -> Frames:
    def told(kind: str, **more: Any) -> bytes:
        return event({"type": kind} | more, kind)

    last = _message(asked, number, tokens, reason)
    usage = {"input_tokens": asked.prompt_tokens, "output_tokens": 0}
    begun = last | {"content": [], "stop_reason": None, "usage": usage}
    block = {"type": "text", "text": ""}
    stop = {"stop_reason": last["stop_reason"], "stop_sequence": None}
    return Frames(
        before=told("message_start", message=begun)
        + told("content_block_start", index=0, content_block=block),
        token=told("content_block_delta", index=0, delta={"type": "text_delta", "text": WORD}),
        finish=told("content_block_stop", index=0)
        + told("message_delta", delta=stop, usage=last["usage"]),
        usage=b"",
        done=told("message_stop"),
    )


_DOCUMENTS: Mapping[Kind, Callable[[Asked, int, int, str | None], Document]] = {
    "chat": _chat,
    "completion": _chat,
    "response": _response,
    "message": _message,
    "embedding": _embeddings,
}
