"""Turns what an engine says when it refuses or fails into our errors, without any of its text.

vLLM's messages may repeat parts of the request (pydantic adds the offending input), so only numbers
and known causes survive.
"""

from __future__ import annotations

import re

import orjson

from serving.errors import (
    ComptoirError,
    ContextLengthError,
    EngineFailedError,
    EngineRejectedError,
    UnsupportedEndpointError,
)

_CONTEXT = re.compile(
    r"maximum context length|max_model_len|maximum model length|maximum input length"
    r"|exceeds the model|longer than the maximum|is too long",
    re.IGNORECASE,
)
_CONTEXT_TOKENS = re.compile(
    r"(?:maximum context length (?:is|of)|max_model_len[^0-9]{0,20}|maximum model length of) ?(\d+)"
)
_NO_TOOL_PARSER = re.compile(r"tool-call-parser|tool parser", re.IGNORECASE)
_SCHEMA = re.compile(r"grammar|json.?schema|regex|xgrammar|structured", re.IGNORECASE)
_PARAM = re.compile(r"[a-z][a-z_]{0,40}")

# A stream's error event. Quotation marks inside generated text are escaped in JSON, so these bytes can
# only be the engine's own.
STREAM_ERROR = b'data: {"error"'


def from_engine(status: int, body: bytes) -> ComptoirError:
    """Our error for an engine's answer with status 400 or above."""
    if status >= 500:
        if status == 501:
            return UnsupportedEndpointError("this model does not support this request")
        return EngineFailedError("the engine failed on this request")
    message, param = _read(body)
    if status == 404:
        return UnsupportedEndpointError("this model does not serve this endpoint", param="model")
    if _CONTEXT.search(message):
        found = _CONTEXT_TOKENS.search(message)
        limit = (
            f"the model's context of {found.group(1)} tokens" if found else "the model's context"
        )
        return ContextLengthError(
            f"prompt and requested completion do not fit {limit}; shorten the prompt or lower "
            "max_tokens",
            param=param or "messages",
        )
    if _NO_TOOL_PARSER.search(message):
        return EngineRejectedError(
            "this model is served without a tool parser; tools need one", param="tools"
        )
    if _SCHEMA.search(message):
        return EngineRejectedError(
            "the engine cannot compile this schema or format", param=param or "response_format"
        )
    where = f" (field '{param}')" if param else ""
    return EngineRejectedError(f"the engine refused the request{where}", param=param)


def _read(body: bytes) -> tuple[str, str | None]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", None
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else {}
    if not isinstance(error, dict):
        return "", None
    message, param = error.get("message"), error.get("param")
    known = isinstance(param, str) and _PARAM.fullmatch(param) is not None
    return message if isinstance(message, str) else "", param if known else None
