"""Turns an engine's refusals and failures into our errors, without any of its text.

vLLM's messages may repeat parts of the request (pydantic adds the offending input), so only numbers
and known causes survive.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import orjson

from serving.api import OUTPUT_LIMITS
from serving.errors import (
    ComptoirError,
    ContextLengthError,
    EngineFailedError,
    EngineRejectedError,
    RequestError,
    UnsupportedEndpointError,
)

_CONTEXT_TOKENS = re.compile(
    r"(?:maximum context length (?:is|of)|max_model_len[^0-9]{0,20}|maximum model length of) ?(\d+)"
)


@dataclass(frozen=True)
class _Cause:
    """A known cause: the engine's pattern, our message, and the fields it can be about."""

    says: re.Pattern[str]
    message: str
    fields: tuple[str, ...]
    error: type[RequestError] = EngineRejectedError


def _cause(
    says: str, message: str, *fields: str, error: type[RequestError] = EngineRejectedError
) -> _Cause:
    return _Cause(re.compile(says, re.IGNORECASE), message, fields, error)


# The first that fits counts. Of `fields`, the error names the first that the request has.
_CAUSES = (
    _cause(
        r"maximum context length|max_model_len|maximum model length|maximum input length"
        r"|exceeds the model|longer than the maximum|is too long",
        "prompt and requested completion do not fit {context}; shorten the prompt{or_limit}",
        *("messages", "prompt", "input", "documents", "text_2", "data_2", "items"),
        error=ContextLengthError,
    ),
    _cause(
        r"tool-call-parser|tool parser",
        "this model is served without a tool parser; tools need one",
        "tools",
    ),
    _cause(
        r"using `tool_choice`, `tools` must be set", "'tool_choice' needs 'tools'", "tool_choice"
    ),
    _cause(
        r"does not match any of the specified `tools`|not found in the tools list"
        r"|tool_choice\.name is required",
        "'tool_choice' must name one of 'tools'",
        "tool_choice",
    ),
    _cause(
        r"`logprobs` must be set to true", "'top_logprobs' needs 'logprobs': true", "top_logprobs"
    ),
    _cause(
        r"thinking_token_budget is set",
        "this model does not support a thinking budget; omit it",
        *("thinking", "thinking_token_budget"),
    ),
    _cause(
        r"matryoshka|only supports dimensions",
        "this model does not support this embedding size; omit 'dimensions'",
        "dimensions",
    ),
    _cause(
        r"min_tokens must be less",
        "'min_tokens' must not be larger than 'max_tokens'",
        "min_tokens",
    ),
    _cause(
        r"budget_tokens",
        "'thinking.budget_tokens' must be at least 1024 and less than 'max_tokens'",
        "thinking",
    ),
    _cause(
        r"out of vocabulary|out-of-vocab",
        "a token id is not in the model's vocabulary",
        *("stop_token_ids", "prompt", "input"),
    ),
    _cause(
        r"not a multimodal model|at most 0 ",
        "this model accepts text only",
        *("messages", "input"),
    ),
    _cause(
        r"grammar|json.?schema|regex|xgrammar|structured|structural.?tag",
        "the engine cannot compile this schema or format",
        *("structured_outputs", "response_format", "text", "output_config", "tools"),
    ),
)
_PARAM = re.compile(r"[a-z][a-z_0-9]{0,40}")

# How vLLM ends a stream that failed, in the OpenAI, Anthropic and Responses dialects. Generated text cannot
# look like it: in JSON, quotation marks and line breaks are escaped.
_STREAM_ERROR = re.compile(
    rb'^(?:data: \{"error"|event: error[\r\n]|event: response\.failed[\r\n])', re.MULTILINE
)
# How such an event begins.
ERROR_EVENTS = (b'data: {"error"', b"event: error", b"event: response.failed")
_DATA, _EVENT, _RESPONSE = ERROR_EVENTS


# vLLM's words for an engine that will not come back (tests/engine/test_internals.py watches them). The
# request has produced nothing, so another replica may take it.
ENGINE_DEAD = b"EngineCore encountered an issue"


def stream_error_at(events: bytes) -> int:
    """Where an error event of the engine begins in these complete events; -1 when there is none."""
    # Every chunk comes by here, and looking for these words is three times as fast as the expression.
    if _DATA not in events and _EVENT not in events and _RESPONSE not in events:
        return -1
    found = _STREAM_ERROR.search(events)
    return found.start() if found else -1


def from_engine(status: int, body: bytes, sent: Collection[str] = ()) -> ComptoirError:
    """Our error for an engine's answer with status 400 or above; `sent` are the request's fields."""
    if status >= 500:
        if status == 501:
            return UnsupportedEndpointError("this model does not support this request")
        return EngineFailedError("the engine failed on this request")
    message, param = _read(body)
    # Engines also name what is theirs alone (`input_tokens`, `body`): clients know their own fields.
    param = param if param in sent else None
    if status == 404:
        return UnsupportedEndpointError("this model does not serve this endpoint", param="model")
    for cause in _CAUSES:
        if cause.says.search(message):
            about = next((name for name in cause.fields if name in sent), None)
            text = cause.message.format(context=_context(message), or_limit=_or_limit(sent))
            return cause.error(text, param=param or about)
    where = f" (field '{param}')" if param else ""
    return EngineRejectedError(f"the engine refused the request{where}", param=param)


def _context(message: str) -> str:
    found = _CONTEXT_TOKENS.search(message)
    return f"the model's context of {found.group(1)} tokens" if found else "the model's context"


def _or_limit(sent: Collection[str]) -> str:
    """The hint to lower the output limit, by its name on this endpoint; embeddings have none."""
    limit = next((name for name in OUTPUT_LIMITS if name in sent), None)
    return f" or lower '{limit}'" if limit else ""


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
