"""The allow-list of request fields: what each endpoint accepts, drops and refuses.

Fields that reach into the engine (chat templates, cache salts, KV transfer, priorities, prompt
embeddings, media options) are refused by name; fields that only other services need are dropped, so
that ordinary clients work. Everything else is refused without repeating its name.
Field names and ranges: https://platform.openai.com/docs/api-reference,
https://docs.anthropic.com/en/api/messages.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from serving import api
from serving.errors import MissingFieldError, UnsupportedFieldError
from serving.settings import RequestLimits
from serving.trust import content, content_anthropic
from serving.trust.checker import Check, Schema, WrongValueError
from serving.trust.checks import (
    INT64,
    boolean,
    either,
    filled,
    integer,
    keyed,
    many,
    number,
    one_of,
    text,
    unknown_member,
)
from serving.trust.images import ImageLimits
from serving.trust.sizes import anything

_STOP = "a string that is not empty, or a list of such strings"

# The names vLLM takes for the two sides of a score.
SCORE_PAIRS = (
    ("text_1", "text_2"),
    ("queries", "documents"),
    ("data_1", "data_2"),
    ("queries", "items"),
)

# Accepted and not sent on: they mean something to other services only, and may hold personal data.
DROPPED = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
)

REFUSED: Mapping[str, str] = {
    "chat_template": "templates come with the model",
    "mm_processor_kwargs": "it changes how the engine reads media",
    "media_io_kwargs": "it changes how the engine reads media",
    "kv_transfer_params": "it is internal to the engine",
    "ec_transfer_params": "it is internal to the engine",
    "vllm_xargs": "it is internal to the engine",
    "priority": "priorities belong to the API key",
    "prompt_logprobs": "it would recompute cached prompts",
    "use_beam_search": "beam search is not offered",
    "prompt_embeds": "embeddings as prompts are not offered",
    "watermarking": "marking is the host's decision",
    "cache_salt": "the prefix cache is separated per tenant by the gateway",
    "request_id": "the gateway assigns request ids",
    "echo": "echoing prompts is not offered",
    "documents": "put documents into the messages",
    "background": "background responses would have to be stored",
    "previous_response_id": "nothing is stored: send the earlier turns in 'input'",
    "logit_bias": "token biases are not offered",
    "audio": "audio is not offered",
    "modalities": "only text is generated",
    "prediction": "predicted outputs are not offered",
    "web_search_options": "web search is not offered",
    "functions": "use 'tools'",
    "function_call": "use 'tool_choice'",
    "best_of": "it is not offered",
    "suffix": "it is not offered",
    "verbosity": "it is not offered",
    "conversation": "nothing is stored: send the earlier turns in 'input'",
    "prompt": f"it belongs to {api.COMPLETIONS}",
    "messages": f"it belongs to {api.CHAT} and {api.MESSAGES}",
    "input": f"it belongs to {api.RESPONSES} and {api.EMBEDDINGS}",
}


@dataclass(frozen=True)
class Endpoint:
    """One path of the API: what it accepts and which model tasks serve it."""

    path: str
    fields: Mapping[str, Check]
    required: tuple[str, ...]
    tasks: frozenset[api.Task]
    images: ImageLimits
    streams: bool = False
    dialect: api.Dialect = "openai"
    pairs: tuple[tuple[str, str], ...] = ()  # both names of one of them are required

    def check(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Validate a body and return what may be sent to an engine.

        Raises:
            MissingFieldError, InvalidFieldError, UnsupportedFieldError: naming the field.
        """
        try:
            kept = self._listed(body)
            self._members.test(kept)
            self._rules(kept)
            for _ in self.images.steps(kept):
                pass
        except WrongValueError as wrong:
            raise wrong.at("") from None
        return kept

    def check_in_steps(self, body: Mapping[str, Any]) -> Generator[None, None, dict[str, Any]]:
        """The same for a large body: others may run between two steps."""
        try:
            kept = self._listed(body)
            yield from self._members.in_steps(kept)
            self._rules(kept)
            yield from self.images.steps(kept)
        except WrongValueError as wrong:
            raise wrong.at("") from None
        return kept

    @cached_property
    def _members(self) -> Check:
        return keyed(self.fields, self.required)

    @cached_property
    def schema(self) -> Schema:
        """JSON Schema of the bodies that it accepts."""
        dropped = {
            name: {"description": "Accepted and not sent on."}
            for name in sorted(DROPPED - self.fields.keys())
        }
        members = self._members.schema
        schema: dict[str, Any] = {
            **members,
            "properties": {**members["properties"], **dropped},
            "title": self.path,
        }
        rules: list[Schema] = []
        if self.pairs:
            given = {
                name: {"not": {"type": "null"}}
                for name in {name for pair in self.pairs for name in pair}
            }
            rules.append(
                {
                    "anyOf": [
                        {"required": list(pair), "properties": {name: given[name] for name in pair}}
                        for pair in self.pairs
                    ]
                }
            )
        if "stream_options" in self.fields:
            rules.append(_STREAM_OPTIONS_RULE)
        if "n" in self.fields:
            rules.append(_GREEDY_RULE)
        return schema | ({"allOf": rules} if rules else {})

    def _listed(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that are sent on, if all fields are known; JSON null counts as absent, everywhere."""
        kept = {}
        fields = self.fields
        for name, value in body.items():
            if name in fields:
                if value is not None:
                    kept[name] = value
            elif name in REFUSED:
                raise WrongValueError(
                    f"'{{path}}' is not supported: {REFUSED[name]}", UnsupportedFieldError
                ).within("." + name)
            elif name not in DROPPED:
                raise unknown_member(name, fields)
        return kept

    def _rules(self, kept: Mapping[str, Any]) -> None:
        """What concerns two fields."""
        if self.pairs:
            self._require_pair(kept)
        if "stream_options" in kept and not kept.get("stream"):
            raise WrongValueError("'{path}' is only allowed with 'stream': true").within(
                ".stream_options"
            )
        if kept.get("n", 1) > 1 and kept.get("temperature", 1.0) < GREEDY:
            raise WrongValueError(
                "'{path}' must be 1 with temperature 0: all choices would be the same"
            ).within(".n")

    def _require_pair(self, kept: Mapping[str, Any]) -> None:
        if any(kept.keys() >= set(pair) for pair in self.pairs):
            return
        begun = next((pair for pair in self.pairs if kept.keys() & set(pair)), self.pairs[0])
        missing = next(name for name in begun if name not in kept)
        choices = ", or ".join(f"'{first}' and '{second}'" for first, second in self.pairs)
        raise WrongValueError(f"'{{path}}' is required; send {choices}", MissingFieldError).within(
            "." + missing
        )


# Below it vLLM takes the likeliest token (`_SAMPLING_EPS`), and refuses several choices.
GREEDY = 1e-5
_STREAM_OPTIONS_RULE: Schema = {
    "anyOf": [
        {"properties": {"stream_options": {"type": "null"}}},
        {"properties": {"stream": {"const": True}}, "required": ["stream"]},
    ]
}
_GREEDY_RULE: Schema = {
    "anyOf": [
        {"properties": {"n": {"anyOf": [{"type": "null"}, {"const": 1}]}}},
        {"properties": {"temperature": {"anyOf": [{"type": "null"}, {"minimum": GREEDY}]}}},
    ]
}


def endpoints(limits: RequestLimits) -> dict[str, Endpoint]:
    """Every endpoint that takes a body, by path: what `serving.api` says of it, and its fields."""
    fields: Mapping[api.Kind, tuple[dict[str, Check], tuple[str, ...]]] = {
        "chat": (_chat(limits), ("model", "messages")),
        "completions": (_completions(limits), ("model", "prompt")),
        "responses": (_responses(limits), ("model", "input")),
        "messages": (_messages(limits), ("model", "messages", "max_tokens")),
        "embeddings": (_embeddings(limits), ("model", "input")),
        "rerank": (_rerank(limits), ("model", "query", "documents")),
        "score": (_score(limits), ("model",)),
    }
    images = ImageLimits(limits.max_images, limits.max_image_pixels)
    return {
        path: Endpoint(
            *(path, *fields[row.kind], row.tasks, images),
            streams=row.generates,
            dialect=row.dialect,
            pairs=SCORE_PAIRS if row.kind == "score" else (),
        )
        for path, row in api.ENDPOINTS.items()
    }


def _sampling(limits: RequestLimits) -> dict[str, Check]:
    return {
        "model": filled,
        "stream": boolean,
        "temperature": number(0, 2),
        "top_p": number(0, 1, above=True),
        "top_k": integer(-1),
        "min_p": number(0, 1),
        "seed": integer(-INT64 - 1, INT64),
        "presence_penalty": number(-2, 2),
        "frequency_penalty": number(-2, 2),
        "repetition_penalty": number(0.01, 10),
        "stop": either(filled, many(filled, high=limits.max_stop), _STOP),
        "stop_token_ids": many(integer(0, content.MAX_TOKEN_ID), high=limits.max_stop),
        "ignore_eos": boolean,
        "skip_special_tokens": boolean,
        "include_stop_str_in_output": boolean,
    }


def _stream_options() -> Check:
    return keyed(
        {
            "include_usage": boolean,
            "continuous_usage_stats": boolean,
            "include_obfuscation": boolean,
        }
    )


def _chat(limits: RequestLimits) -> dict[str, Check]:
    return _sampling(limits) | {
        "messages": many(content.chat_message, low=1, high=limits.max_messages),
        "max_tokens": integer(1, limits.max_output_tokens),
        "max_completion_tokens": integer(1, limits.max_output_tokens),
        "min_tokens": integer(0, limits.max_output_tokens),
        "n": integer(1, limits.max_n),
        "logprobs": boolean,
        "top_logprobs": integer(0, 20),
        "stream_options": _stream_options(),
        "response_format": content.response_format,
        "tools": many(content.chat_tool, low=1, high=content.MAX_TOOLS),
        "tool_choice": content.tool_choice,
        "parallel_tool_calls": boolean,
        "reasoning_effort": one_of("none", "minimal", "low", "medium", "high", "xhigh", "max"),
        "include_reasoning": boolean,
        "chat_template_kwargs": keyed({"enable_thinking": boolean, "thinking": boolean}),
    }


def _completions(limits: RequestLimits) -> dict[str, Check]:
    return _sampling(limits) | {
        "prompt": content.prompt(limits.max_inputs),
        "max_tokens": integer(1, limits.max_output_tokens),
        "min_tokens": integer(0, limits.max_output_tokens),
        "n": integer(1, limits.max_n),
        "logprobs": integer(0, 20),
        "stream_options": _stream_options(),
        "response_format": content.response_format,
    }


def _responses(limits: RequestLimits) -> dict[str, Check]:
    return {
        "model": filled,
        "input": either(
            text,
            many(content.response_item, low=1, high=limits.max_messages),
            "a string or a list of items",
        ),
        "instructions": text,
        "max_output_tokens": integer(1, limits.max_output_tokens),
        "stream": boolean,
        "temperature": number(0, 2),
        "top_p": number(0, 1, above=True),
        "top_logprobs": integer(0, 20),
        "text": keyed({"format": content.text_format}),
        "tools": many(content.response_tool, high=content.MAX_TOOLS),
        "tool_choice": content.tool_choice,
        "parallel_tool_calls": boolean,
        "reasoning": keyed({"effort": text, "summary": text}),
        "include": many(
            one_of("message.output_text.logprobs", "reasoning.encrypted_content"), high=16
        ),
        "truncation": one_of("auto", "disabled"),
        "presence_penalty": number(-2, 2),
        "frequency_penalty": number(-2, 2),
        "seed": integer(-INT64 - 1, INT64),
        "stop": either(filled, many(filled, high=limits.max_stop), _STOP),
    }


def _messages(limits: RequestLimits) -> dict[str, Check]:
    return {
        "model": filled,
        "messages": many(content_anthropic.message, low=1, high=limits.max_messages),
        "max_tokens": integer(1, limits.max_output_tokens),
        "system": either(text, content_anthropic.blocks, "a string or a list of blocks"),
        "stop_sequences": many(filled, high=limits.max_stop),
        "stream": boolean,
        "temperature": number(0, 1),
        "top_p": number(0, 1, above=True),
        "top_k": integer(0),
        "tools": many(content_anthropic.tool, high=content.MAX_TOOLS),
        "tool_choice": content_anthropic.tool_choice,
        "thinking": content_anthropic.thinking,
    }


def _embeddings(limits: RequestLimits) -> dict[str, Check]:
    return {
        "model": filled,
        "input": content.prompt(limits.max_inputs),
        "encoding_format": one_of("float", "base64"),
        "dimensions": integer(1),
        "truncate_prompt_tokens": integer(-1, INT64),
    }


def _rerank(limits: RequestLimits) -> dict[str, Check]:
    return {
        "model": filled,
        "query": filled,
        "documents": many(text, low=1, high=limits.max_inputs),
        "top_n": integer(0),
        "truncate_prompt_tokens": integer(-1, INT64),
    }


def _score(limits: RequestLimits) -> dict[str, Check]:
    texts = either(text, many(text, low=1, high=limits.max_inputs), "a string or a list of strings")
    return {name: texts for pair in SCORE_PAIRS for name in pair} | {
        "model": filled,
        "truncate_prompt_tokens": integer(-1, INT64),
        "encoding_format": anything,
    }
