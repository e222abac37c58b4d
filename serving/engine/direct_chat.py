"""Chat completions without the web framework: from the door to vLLM's handler and back.

vLLM's app validates, routes and wraps each request in FastAPI and sends every chunk through six layers of
`send`, which costs more than a small chunk. Here the same handler gets the same request, and its chunks
go to the socket. Requests that this class does not understand go through vLLM's app, as all others do.
tests/engine/test_internals.py watches the parts of vLLM that it needs; tests/engine/real/test_direct_chat.py
compares each answer with that of vLLM's app.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import orjson
from pydantic import PrivateAttr
from starlette.requests import Request
from starlette.responses import Response
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.exceptions import VLLMError

from serving.api import CHAT
from serving.engine.chunk_template import ChunkTemplate
from serving.engine.reasoning_names import with_both_names
from serving.http_protocol import EXTENSION, ClientConnection, client_of

_JSON = "application/json"


class _Request(ChatCompletionRequest):
    """A request that carries its client's `send`."""

    _stream: Any = PrivateAttr(default=None)


class DirectChat:
    """ASGI application around vLLM's."""

    def __init__(self, app: Any) -> None:
        """Args: app: vLLM's FastAPI app; its chat handler, if it has one, is told about templates."""
        self._app = app
        self._handler: Any = getattr(app.state, "openai_serving_chat", None)
        if self._handler is not None:
            _use_templates(self._handler)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if (
            self._handler is None
            or scope["path"] != CHAT
            or EXTENSION not in scope.get("extensions", {})
        ):
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        try:
            request = _Request.model_validate(orjson.loads(body))
        except (ValueError, TypeError, VLLMError):
            # vLLM's own app says what is wrong with it.
            await self._app(scope, _again(body, receive), send)
            return
        client = client_of(scope)
        task = asyncio.current_task()
        client.on_lost = task.cancel if task else None
        try:
            await self._answer(request, scope, send, client)
        except asyncio.CancelledError:
            if not client.is_lost:
                raise
        finally:
            client.on_lost = None

    async def _answer(
        self, request: _Request, scope: Any, send: Any, client: ClientConnection
    ) -> None:
        # Exception handlers of vLLM look for the app here.
        raw = Request(scope | {"app": self._app})
        stream = request._stream = _Stream(client, send)
        try:
            answer = await self._handler.create_chat_completion(request, raw)
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # vLLM takes every cancellation for a client that left, and answers it with status 400.
                raise asyncio.CancelledError
            if isinstance(answer, AsyncGenerator):
                await stream.send(answer)
                return
        except Exception as error:
            handler = _handler_of(self._app, error)
            if handler is None or stream.has_begun:
                raise
            response = await handler(raw, error)
        else:
            response = _whole(answer)
        await response(scope, None, send)


def _whole(answer: Any) -> Response:
    if isinstance(answer, ErrorResponse):
        return Response(answer.model_dump_json(), answer.error.code, media_type=_JSON)
    return Response(with_both_names(answer.model_dump_json()), 200, media_type=_JSON)


class _Stream:
    """One stream on its way to the gateway."""

    def __init__(self, client: ClientConnection, send: Any) -> None:
        self._client = client
        self._send = send
        self._text = ""
        self.template: ChunkTemplate | None = None
        self.has_begun = False

    async def send(self, chunks: AsyncIterator[str]) -> None:
        """Send what vLLM's handler renders, and learn the template from it."""
        async for chunk in chunks:
            if not self.has_begun:
                self.has_begun = True
                headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
                await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            elif self._text:
                self.template, self._text = ChunkTemplate.learn(chunk, self._text), ""
            self._client.write(with_both_names(chunk).encode())
            if self._client.is_slow:
                await self._until_read()
        await self._send({"type": "http.response.body", "body": b""})

    async def rendering(
        self, results: AsyncIterator[Any], is_plain: bool
    ) -> AsyncGenerator[Any, None]:
        """Render results with the template where possible; hand the others on to vLLM's handler.

        The handler counts tokens: those of the chunks it never saw come with the next result it sees.

        Args:
            results: what the engine generates.
            is_plain: whether all of its text is content, as it is.
        """
        unseen: list[int] = []
        async for result in results:
            output = result.outputs[0]
            plain = is_plain and bool(output.text) and output.finish_reason is None
            if self.template is not None and plain:
                unseen.extend(output.token_ids)
                self._client.write(self.template.fill(output.text))
                if self._client.is_slow:
                    await self._until_read()
                continue
            if unseen:
                output.token_ids, unseen = [*unseen, *output.token_ids], []
            if self.template is None and plain:
                self._text = output.text
            yield result

    async def _until_read(self) -> None:
        """Wait for the gateway to read; meanwhile vLLM merges the engine's output."""
        writable = asyncio.Event()
        self._client.on_writable = writable.set
        await writable.wait()
        self._client.on_writable = None


def _use_templates(handler: Any) -> None:
    """Route the handler's streams through `_Stream.rendering`."""
    original: Callable[..., AsyncGenerator[str, None]] = handler.chat_completion_stream_generator

    def generator(request: Any, results: Any, *args: Any, **kwargs: Any) -> Any:
        stream: _Stream | None = getattr(request, "_stream", None)
        if stream is not None:
            results = stream.rendering(results, _is_plain(request, handler.parser_cls))
        return original(request, results, *args, **kwargs)

    handler.chat_completion_stream_generator = generator


def _is_plain(request: ChatCompletionRequest, parser: Any) -> bool:
    """Whether all text that the engine generates is content, unchanged."""
    if (request.n or 1) > 1 or request.use_beam_search or request.echo:
        return False
    if parser is None:
        return True
    # Tool parsers that are state machines look at the text even where there are no tools.
    tools = getattr(parser, "tool_parser_cls", None)
    return (
        getattr(parser, "reasoning_parser_cls", True) is None
        and not getattr(tools, "engine_based_streaming", True)
        and request.tool_choice == "none"
    )


def _handler_of(app: Any, error: Exception) -> Any:
    """The app's handler for this error, found as Starlette finds it."""
    for cls in type(error).__mro__:
        if cls in app.exception_handlers:
            return app.exception_handlers[cls]
    return None


async def _read(receive: Any) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _again(body: bytes, receive: Any) -> Any:
    """A `receive` that returns a body that has already been read."""
    is_given = False

    async def replay() -> Any:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
