"""Whose fault a failure is: the replica's, or the request's. One place for every cause. Pure.

| the answer | whose fault | consequence |
|---|---|---|
| no connection, a closed or vanished one, an empty 401, 502 or 503 of the door, vLLM's word that its engine is dead | the replica's: nothing in a request brings it about | its breaker; another is asked |
| any other 5xx, an error event before the first token | not known yet | another is asked: if that fails, too, the request is the cause; if it answers, the first is doubted |
| 4xx, 501, an error event with such a code before the first token | the request's | it is the answer |
| no byte for as long as one may wait, while the engine takes steps | nobody's: the answer is long | 504 |
| the same without a step | the replica's | its breaker; 504, or a fallback |
| the client has left | nobody's | nothing |

`Upstream` raises for the first row; the rest of it is read off the beginning of an answer here.
"""  # noqa: E501 - a table

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import orjson

from serving.gateway.engine_errors import ENGINE_DEAD, ERROR_EVENTS

# "failed": by the engine, which lives; "busy": it has no room; "dead": it will not come back.
Verdict = Literal["answered", "refused", "failed", "busy", "dead"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error of the request: its HTTP status, and the body that names it."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Beginning:
    """The verdict on the beginning of an answer. `refusal`: an error inside a stream with status 200."""

    verdict: Verdict
    refusal: Refusal | None = None


_ANSWERED = Beginning("answered")
_BY_STATUS: dict[int, Verdict] = {501: "refused", 503: "busy"}


def judge(status: int, first: bytes) -> Beginning:
    """Judge an answer by its status and first bytes."""
    if status == 200:
        # vLLM answers 200 and only then looks at some parts of a request.
        return _judge_event(first) if first.startswith(ERROR_EVENTS) else _ANSWERED
    if status < 500:
        return Beginning("refused" if status >= 400 else "answered")
    return Beginning(_failure(status, _error(first)))


def names_a_dead_engine(first: bytes) -> bool:
    """Whether this error body is vLLM's report of a dead engine.

    The whole message has to begin so: an error's text can repeat the client's words somewhere.
    """
    return ENGINE_DEAD in first and _is_dead(_error(first))


def _judge_event(first: bytes) -> Beginning:
    data = next(
        (line[5:] for line in first.splitlines() if line.startswith(b"data:")),
        b"",
    )
    error = _error(data)
    code = error.get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    verdict: Verdict = "refused" if status < 500 else _failure(status, error)
    refusal = Refusal(status, orjson.dumps({"error": error})) if verdict == "refused" else None
    return Beginning(verdict, refusal)


def _failure(status: int, error: dict[str, Any]) -> Verdict:
    return "dead" if _is_dead(error) else _BY_STATUS.get(status, "failed")


def _is_dead(error: dict[str, Any]) -> bool:
    message = error.get("message")
    return isinstance(message, str) and message.startswith(ENGINE_DEAD.decode())


def _error(body: bytes) -> dict[str, Any]:
    """The error object of a body or an event, in any dialect; empty when there is none."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    for name in ("response", "error"):
        if isinstance(parsed, dict) and name in parsed:
            parsed = parsed[name]
    return parsed if isinstance(parsed, dict) else {}
