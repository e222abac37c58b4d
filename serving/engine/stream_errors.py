"""Reports vLLM's refusals at once, also after vLLM has begun a stream, and lets no such error get lost.

vLLM looks at some parts of a request (schemas, token ids) only after it has said 200 to a stream. For chats
and completions it then sends an error event with a code, and nothing before it. Its converter for Anthropic's
messages turns that event into an error of its own, without the code; its Responses first send two events
without content, and then break off. Here both behave like chats, so a gateway can still answer with a
status. tests/engine/real/test_stream_errors.py holds this against vLLM.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import orjson

Events = Callable[..., AsyncIterator[Any]]

_ERROR = 'data: {"error"'
# They say that an answer will come, and wait here until it does.
_PREAMBLE = frozenset({"response.created", "response.in_progress"})


def tell_errors(state: Any) -> None:
    """Wrap the streams of vLLM's handlers; `state` is its app's, with the handlers of the model's task."""
    messages = getattr(state, "anthropic_serving_messages", None)
    if messages is not None:
        messages.message_stream_converter = partial(
            message_events, messages.message_stream_converter
        )
    responses = getattr(state, "openai_serving_responses", None)
    if responses is not None:
        responses.responses_stream_generator = partial(
            response_events, responses.responses_stream_generator
        )


async def message_events(convert: Events, chunks: AsyncIterator[str]) -> AsyncIterator[str]:
    """Anthropic's events from a chat's chunks; an error among these ends them unchanged."""
    errors: list[str] = []

    async def until_error() -> AsyncIterator[str]:
        async for chunk in chunks:
            if chunk.startswith(_ERROR):
                errors.append(chunk)
                return
            yield chunk

    async for event in convert(until_error()):
        yield event
    for error in errors:
        yield error


async def response_events(generate: Events, *args: Any, **options: Any) -> AsyncIterator[Any]:
    """The events of a Responses stream: none before the first with content, an error if it fails."""
    held: list[Any] | None = []
    try:
        async for event in generate(*args, **options):
            if held is not None:
                if event.type in _PREAMBLE:
                    held.append(event)
                    continue
                for one in held:
                    yield one
                held = None
            yield _as_it_ended(event)
    except Exception as error:  # noqa: BLE001 - whatever vLLM raises here, its client is told in its words
        yield _Failed(error)
        return
    for one in held or ():
        yield one


class _Event:
    """An event as vLLM's renderer needs it: its type and its JSON."""

    def __init__(self, kind: str, data: dict[str, Any]) -> None:
        self.type = kind
        self._data = data

    def model_dump_json(self, **_: Any) -> str:
        """The same as pydantic's method."""
        return orjson.dumps(self._data).decode()


class _Failed(_Event):
    """An error as vLLM would have answered it with a status."""

    def __init__(self, error: Exception) -> None:
        from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
        from vllm.exceptions import GenerationError

        # vLLM fails to write a failed generation as one of these events: the first error is the cause.
        before = error.__context__
        cause = before if isinstance(before, GenerationError) else error
        super().__init__("error", create_error_response(cause).model_dump())


def _as_it_ended(event: Any) -> Any:
    """The right last event: vLLM ends every stream as "completed", and a truncated one has its own.

    https://platform.openai.com/docs/api-reference/responses-streaming/response/incomplete
    """
    if event.type != "response.completed" or event.response.status != "incomplete":
        return event
    data = event.model_dump(mode="json", by_alias=True)
    return _Event("response.incomplete", data | {"type": "response.incomplete"})
