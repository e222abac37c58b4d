"""The form of each API's answers, streamed and whole: a `Reading` for each endpoint.

Sources: https://platform.openai.com/docs/api-reference (chat, completions, responses, embeddings),
https://docs.anthropic.com/en/api/messages-streaming and https://docs.vllm.ai (rerank, score, classify).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from loadtests.answers.reading import Expected, Reading
from serving import api

Usage = Mapping[str, Any] | None


class Chat(Reading):
    """Chat completions, OpenAI's."""

    def _event(self, chunk: dict[str, Any]) -> None:
        usage = chunk.get("usage")
        if usage:
            self._usage(usage)
        choices = chunk["choices"]
        if choices.__class__ is not list:
            raise TypeError("choices: not a list")
        for choice in choices:
            delta = choice["delta"]
            text = delta.get("content")
            if text:
                self._say(text)
            else:
                self._say_other(delta)
            index, reason = choice.get("index", 0), choice.get("finish_reason")
            if reason or index not in self._reasons:
                self._reasons[index] = reason

    def _whole(self, document: dict[str, Any]) -> None:
        self._usage(document.get("usage"))
        for place, choice in enumerate(_list(document["choices"])):
            message = choice["message"]
            if message.get("content"):
                self._say(message["content"])
            self._say_other(message)
            self._reasons[choice.get("index", place)] = choice.get("finish_reason")

    def _say_other(self, part: Mapping[str, Any]) -> None:
        """Note text that is not content: reasoning, a tool call, a refusal."""
        text = part.get("reasoning_content") or part.get("reasoning") or part.get("refusal")
        if text:
            self._say(text, keep=False)
        elif part.get("tool_calls"):
            self.tool_calls = True
            self._say(" ", keep=False)

    def _usage(self, usage: Usage) -> None:
        if usage:
            details = usage.get("prompt_tokens_details") or {}
            # Embeddings have no completion.
            self._count(
                usage.get("prompt_tokens", usage.get("total_tokens")),
                usage.get("completion_tokens") or 0,
                details.get("cached_tokens") or 0,
            )


class Completions(Chat):
    """Completions, OpenAI's: text where chats have messages."""

    def _event(self, chunk: dict[str, Any]) -> None:
        self._usage(chunk.get("usage"))
        for choice in _list(chunk["choices"]):
            self._choice(choice)

    def _whole(self, document: dict[str, Any]) -> None:
        self._event(document)

    def _choice(self, choice: Mapping[str, Any]) -> None:
        text = choice["text"]
        if text:
            self._say(text)
        elif text is None:
            raise TypeError("text: null")
        index, reason = choice.get("index", 0), choice.get("finish_reason")
        if reason or index not in self._reasons:
            self._reasons[index] = reason


class Responses(Reading):
    """OpenAI's Responses: the last event says how it ended, and has the whole answer."""

    _LAST = ("response.completed", "response.incomplete", "response.cancelled")
    _TEXTS = frozenset(
        f"response.{part}.delta"
        for part in ("output_text", "reasoning_text", "reasoning_summary_text", "refusal")
    )
    _CALLS = frozenset(
        {"response.function_call_arguments.delta", "response.custom_tool_call_input.delta"}
    )

    def _event(self, chunk: dict[str, Any]) -> None:
        kind = chunk["type"]
        if kind in self._TEXTS:
            if chunk["delta"]:
                self._say(chunk["delta"], keep=kind == "response.output_text.delta")
        elif kind in self._CALLS:
            self.tool_calls = True
            self._say(" ", keep=False)
        elif kind == "response.failed":
            self.fail("error_event")
        elif kind in self._LAST:
            self.is_done = True
            self._ended(chunk["response"])
        elif not kind.startswith("response."):
            raise ValueError("type: not an event of this API")

    def _whole(self, document: dict[str, Any]) -> None:
        if document["object"] != "response":
            raise ValueError("object: not a response")
        for item in _list(document["output"]):
            if item["type"] == "function_call":
                self.tool_calls = True
                self._say(" ", keep=False)
            for part in item.get("content") or ():
                if part.get("text"):
                    self._say(part["text"], keep=item["type"] == "message")
        self._ended(document)

    def _ended(self, response: Mapping[str, Any]) -> None:
        status = response["status"]
        details = response.get("incomplete_details") or {}
        reasons = {"completed": "stop", "incomplete": details.get("reason") or "length"}
        # Others: failed, cancelled, and of an answer that goes on in the background.
        self._reasons[0] = reasons.get(status, "aborted" if status else None)
        usage = response.get("usage")
        if usage:
            cached = (usage.get("input_tokens_details") or {}).get("cached_tokens") or 0
            self._count(usage["input_tokens"], usage["output_tokens"], cached)


class Messages(Reading):
    """Messages, as Anthropic's API has them."""

    _OTHERS = ("content_block_start", "content_block_stop", "ping")

    def _event(self, chunk: dict[str, Any]) -> None:
        kind = chunk["type"]
        if kind == "content_block_delta":
            self._delta(chunk["delta"])
        elif kind == "message_start":
            message = chunk["message"]
            self._reasons[0] = message.get("stop_reason")
            self._usage(message.get("usage"))
        elif kind == "message_delta":
            self._reasons[0] = chunk["delta"].get("stop_reason") or self._reasons.get(0)
            self._usage(chunk.get("usage"))
        elif kind == "message_stop":
            self.is_done = True
        elif kind not in self._OTHERS:
            raise ValueError("type: not an event of this API")

    def _delta(self, delta: Mapping[str, Any]) -> None:
        text = delta.get("text") or delta.get("thinking")
        if text:
            self._say(text, keep="text" in delta)
        elif delta.get("partial_json") is not None:
            self.tool_calls = True
            self._say(" ", keep=False)

    def _whole(self, document: dict[str, Any]) -> None:
        if document["type"] != "message":
            raise ValueError("type: not a message")
        for part in _list(document["content"]):
            if part["type"] == "tool_use":
                self.tool_calls = True
                self._say(" ", keep=False)
            elif part.get("text") or part.get("thinking"):
                self._say(part.get("text") or part["thinking"], keep=part["type"] == "text")
        self._reasons[0] = document.get("stop_reason")
        self._usage(document.get("usage"))

    def _usage(self, usage: Usage) -> None:
        if usage:
            cached = usage.get("cache_read_input_tokens") or 0
            prompt = usage.get("input_tokens")
            known = max(0, self.prompt_tokens) if prompt is None else prompt + cached
            self._count(known, usage.get("output_tokens") or 0, max(cached, self.cached_tokens, 0))


class Items(Chat):
    """Endpoints that answer with a list, one item for each input, and are never streamed."""

    _KEY = "data"
    _NEEDED: tuple[str, ...] = ()

    def _event(self, chunk: dict[str, Any]) -> None:
        raise ValueError("this endpoint does not stream")

    def _whole(self, document: dict[str, Any]) -> None:
        self._usage(document.get("usage"))
        for place, item in enumerate(_list(document[self._KEY])):
            for key in self._NEEDED:
                if item[key] is None:
                    raise TypeError("an item has no value")
                self._has_text = self._has_text or item[key] not in ("", [])
            self._reasons[place] = "stop"


class Embeddings(Items):
    """Embeddings."""

    _NEEDED = ("embedding",)


class Scores(Items):
    """Scores of pairs."""

    _NEEDED = ("score",)


class Classes(Items):
    """/v1/classify."""

    _NEEDED = ("label",)


class Ranks(Items):
    """Documents in the order of their scores."""

    _KEY = "results"
    _NEEDED = ("relevance_score",)


DIALECTS: Mapping[str, type[Reading]] = {
    api.CHAT: Chat,
    api.COMPLETIONS: Completions,
    api.RESPONSES: Responses,
    api.MESSAGES: Messages,
    api.EMBEDDINGS: Embeddings,
    api.SCORE: Scores,
    "/v1/classify": Classes,
    api.RERANK: Ranks,
}


def reading(
    expected: Expected, on_text: Callable[[], None] | None = None, *, keep_text: bool = False
) -> Reading:
    """Reads an answer of the endpoint that was asked; `on_text` is called for each piece of text."""
    return DIALECTS[expected.path](expected, on_text, keep_text)


def judged(
    expected: Expected, content_type: str, body: bytes, *, keep_text: bool = False
) -> Reading:
    """Judge a complete answer with status 200, streamed or not."""
    found = reading(expected, keep_text=keep_text)
    found.begin(content_type)
    found.feed(body)
    found.finish()
    return found


def _list(value: Any) -> list[Any]:
    if value.__class__ is not list:
        raise TypeError("not a list")
    found: list[Any] = value
    return found
