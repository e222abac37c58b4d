"""Answers with wrong ends, each with a name, which a load client must not take for good ones.

A request asks for one with the header `x-reference-end`; the option `end` answers a share of all so. Every
name begins with the word that the client must have for it (`loadtests.answers.ends`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import orjson

from loadtests.answers.ends import End
from loadtests.reference.messages import STREAM_HEAD, Asked, Kind, error, simple
from loadtests.reference.shapes import LAST_CHUNK, chunk, document, event, frames

# Tokens that come before it goes wrong; requests must ask for more.
TOKENS = 3
_ERROR = {"message": "the engine stopped", "type": "server_error", "code": 500}


class Ending(NamedTuple):
    """The data to send, and the end: none, a cut connection, or a client left waiting."""

    data: bytes
    then: str = ""


Way = Callable[[Asked, int], Ending]


def _http(asked: Asked, number: int) -> Ending:
    return Ending(error(500, "asked for by name"))


def _reset(asked: Asked, number: int) -> Ending:
    return Ending(b"", "cut")


def _timeout(asked: Asked, number: int) -> Ending:
    return Ending(b"", "wait")


def _body(data: bytes, content_type: bytes = b"application/json") -> Way:
    return lambda asked, number: Ending(simple(200, data, content_type))


def _begun(asked: Asked, number: int) -> bytes:
    made = frames(asked, number)
    return STREAM_HEAD + made.before + made.token * TOKENS


def _instead(last: bytes, *, is_done: bool = True) -> Way:
    """Some tokens, then this instead of the rest; of an answer that is not streamed, this alone."""

    def way(asked: Asked, number: int) -> Ending:
        rest = frames(asked, number).after if is_done else LAST_CHUNK
        return Ending(_begun(asked, number) + last + rest)

    return way


def _of(tokens: int, reason: str | None) -> Way:
    """Well-formed to its end, with so many tokens and this reason."""

    def way(asked: Asked, number: int) -> Ending:
        if not asked.stream:
            return Ending(simple(200, orjson.dumps(document(asked, number, tokens, reason))))
        made = frames(asked, number, tokens, reason)
        return Ending(STREAM_HEAD + made.before + made.token * tokens + made.after)

    return way


def _truncated(asked: Asked, number: int) -> Ending:
    """The HTTP message ends well, and the stream in it does not."""
    return Ending(_begun(asked, number) + LAST_CHUNK)


def _truncated_cut(asked: Asked, number: int) -> Ending:
    if not asked.stream:
        good = simple(200, orjson.dumps(document(asked, number)))
        return Ending(good[:-20], "cut")
    return Ending(_begun(asked, number), "cut")


def _truncated_last_chunk(asked: Asked, number: int) -> Ending:
    """All events came, and HTTP's own end did not."""
    return Ending(_begun(asked, number) + frames(asked, number).after[: -len(LAST_CHUNK)], "cut")


def _malformed_other(asked: Asked, number: int) -> Ending:
    """A good answer of another endpoint."""
    other: Kind = "message" if asked.kind in ("chat", "completion", "response") else "chat"
    return Ending(simple(200, orjson.dumps(document(Asked(other, asked.model, 1, 9), number))))


def _malformed_usage(asked: Asked, number: int) -> Ending:
    found = document(asked, number)
    found["usage"] = dict.fromkeys(found["usage"], "many")
    return Ending(simple(200, orjson.dumps(found)))


def _malformed_not_streamed(asked: Asked, number: int) -> Ending:
    return Ending(simple(200, orjson.dumps(document(asked, number))))


def _empty_list(asked: Asked, number: int) -> Ending:
    found = document(asked, number)
    key = next(key for key in ("choices", "data", "output", "content") if key in found)
    return Ending(simple(200, orjson.dumps(found | {key: []})))


_SAID = orjson.dumps({"error": _ERROR})
_OBJECT = orjson.dumps({"object": "error", **_ERROR})
_TYPED = orjson.dumps({"type": "error", "error": _ERROR})
_WORDS = b"the engine is not well"

EITHER: dict[str, Way] = {
    "http": _http,
    "reset": _reset,
    "timeout": _timeout,
    "error_body": _body(_SAID),
    "error_body:object": _body(_OBJECT),
    "error_body:type": _body(_TYPED),
    "malformed:nothing": _body(b""),
    "malformed:empty-object": _body(b"{}"),
    "malformed:null": _body(b"null"),
    "malformed:list": _body(b"[]"),
    "malformed:html": _body(b"<html>" + _WORDS, b"text/html"),
    "malformed:not-http": lambda asked, number: Ending(_WORDS + b"\r\n\r\n", "cut"),
    "malformed:other-endpoint": _malformed_other,
}
WHOLE: dict[str, Way] = EITHER | {
    "malformed:usage": _malformed_usage,
    "malformed:streamed": _truncated,
    "truncated:cut": _truncated_cut,
    "empty": _empty_list,
}
# Of endpoints that write text.
WRITTEN: dict[str, Way] = {
    "aborted": _of(TOKENS, "abort"),
    "aborted:error": _of(TOKENS, "error"),
    "no_finish_reason": _of(TOKENS, None),
    "empty:no-text": _of(0, "stop"),
    "short": _of(TOKENS, "length"),
}
STREAMED: dict[str, Way] = EITHER | {
    "error_event": _instead(event(_SAID), is_done=False),
    "error_event:then-done": _instead(event(_SAID)),
    "error_event:named": _instead(event(_TYPED, "error"), is_done=False),
    "error_event:named-only": _instead(event(b"{}", "error"), is_done=False),
    "error_event:object": _instead(event(_OBJECT), is_done=False),
    "malformed:empty-event": _instead(event(b"{}")),
    "malformed:no-json": _instead(event(_WORDS)),
    "malformed:no-field": _instead(chunk(_WORDS + b"\n\n")),
    "malformed:not-streamed": _malformed_not_streamed,
    "truncated": _truncated,
    "truncated:cut": _truncated_cut,
    "truncated:last-chunk": _truncated_last_chunk,
}
NAMES = tuple(dict.fromkeys([*WHOLE, *STREAMED, *WRITTEN]))


def ways(asked: Asked) -> Mapping[str, Way]:
    """Every way to end wrongly that a request of this kind has."""
    if asked.kind == "embedding":
        return WHOLE
    found = STREAMED if asked.stream else WHOLE
    # A failed response is an error, not an answer with a reason.
    skipped = ("aborted:error",) if asked.kind == "response" else ()
    return {name: way for name, way in (found | WRITTEN).items() if name not in skipped}


def end_of(name: str) -> End:
    """The word that a client must have for it."""
    found: End = name.partition(":")[0]  # type: ignore[assignment]
    return found
