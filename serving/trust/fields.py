"""The table of request fields: what each endpoint sends on, reads itself, drops and refuses.

Fields that reach into the engine (chat templates, cache salts, KV transfer, priorities, prompt
embeddings, media options) are refused by name; fields that only other services need are dropped, so
that ordinary clients work. A field without a row is refused without repeating its name.
Field names and ranges: https://platform.openai.com/docs/api-reference,
https://docs.anthropic.com/en/api/messages.
"""

from __future__ import annotations

from collections.abc import Mapping

from serving import api
from serving.settings import RequestLimits
from serving.trust import content, content_anthropic
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
)
from serving.trust.endpoint import Endpoint, Fate, Field
from serving.trust.images import ImageLimits
from serving.trust.sizes import anything

Rows = tuple[Field, ...]

_STOP = "a string that is not empty, or a list of such strings"

# Rows of every endpoint that has none of its own for the field. What is not sent on may be personal data.
EVERYWHERE = (
    Field.honoured("user", "its hash tells sessions apart"),
    Field.honoured("prompt_cache_key", "its hash tells sessions apart"),
    Field.dropped("metadata", "nothing is stored"),
    Field.dropped("store", "nothing is stored"),
    Field.dropped("service_tier", "priorities belong to the API key"),
    Field.dropped("safety_identifier", "nothing is reported by it"),
    Field.refused("chat_template", "templates come with the model"),
    Field.refused("mm_processor_kwargs", "it changes how the engine reads media"),
    Field.refused("media_io_kwargs", "it changes how the engine reads media"),
    Field.refused("kv_transfer_params", "it is internal to the engine"),
    Field.refused("ec_transfer_params", "it is internal to the engine"),
    Field.refused("vllm_xargs", "it is internal to the engine"),
    Field.refused("priority", "priorities belong to the API key"),
    Field.refused("prompt_logprobs", "it would recompute cached prompts"),
    Field.refused("use_beam_search", "beam search is not offered"),
    Field.refused("prompt_embeds", "embeddings as prompts are not offered"),
    Field.refused("watermarking", "marking is the host's decision"),
    Field.refused("cache_salt", "the prefix cache is separated per tenant by the gateway"),
    Field.refused("request_id", "the gateway assigns request ids"),
    Field.refused("echo", "echoing prompts is not offered"),
    Field.refused("documents", "put documents into the messages"),
    Field.refused("background", "background responses would have to be stored"),
    Field.refused("previous_response_id", "nothing is stored: send the earlier turns in 'input'"),
    Field.refused("logit_bias", "token biases are not offered"),
    Field.refused("audio", "audio is not offered"),
    Field.refused("modalities", "only text is generated"),
    Field.refused("prediction", "predicted outputs are not offered"),
    Field.refused("web_search_options", "web search is not offered"),
    Field.refused("functions", "use 'tools'"),
    Field.refused("function_call", "use 'tool_choice'"),
    Field.refused("best_of", "it is not offered"),
    Field.refused("suffix", "it is not offered"),
    Field.refused("verbosity", "it is not offered"),
    Field.refused("conversation", "nothing is stored: send the earlier turns in 'input'"),
    Field.refused("prompt", f"it belongs to {api.COMPLETIONS}"),
    Field.refused("messages", f"it belongs to {api.CHAT} and {api.MESSAGES}"),
    Field.refused("input", f"it belongs to {api.RESPONSES} and {api.EMBEDDINGS}"),
)
# By name, what is not sent on, and what is refused with which reason.
DROPPED = frozenset(row.name for row in EVERYWHERE if row.fate is not Fate.REFUSED)
REFUSED: Mapping[str, str] = {row.name: row.why for row in EVERYWHERE if row.name not in DROPPED}


def endpoints(limits: RequestLimits) -> dict[str, Endpoint]:
    """Every endpoint that takes a body, by path: what `serving.api` says of it, and its fields."""
    tables: Mapping[api.Kind, Rows] = {
        "chat": _chat(limits),
        "completions": _completions(limits),
        "responses": _responses(limits),
        "messages": _messages(limits),
        "embeddings": _embeddings(limits),
        "rerank": _rerank(limits),
        "score": _score(limits),
    }
    images = ImageLimits(limits.max_images, limits.max_image_pixels)
    return {
        path: Endpoint(
            path,
            _table(tables[row.kind]),
            row.tasks,
            images,
            streams=row.generates,
            dialect=row.dialect,
            pairs=api.SCORE_PAIRS if row.kind == "score" else (),
        )
        for path, row in api.ENDPOINTS.items()
    }


def _table(rows: Rows) -> Mapping[str, Field]:
    own = {row.name: row for row in rows}
    return own | {row.name: row for row in EVERYWHERE if row.name not in own}


def _sampling(limits: RequestLimits) -> Rows:
    return (
        Field("model", filled, required=True),
        Field("stream", boolean),
        Field("stream_options", _STREAM_OPTIONS),
        Field("temperature", number(0, 2)),
        Field("top_p", number(0, 1, above=True)),
        Field("top_k", integer(-1)),
        Field("min_p", number(0, 1)),
        Field("n", integer(1, limits.max_n)),
        Field("seed", integer(-INT64 - 1, INT64)),
        Field("max_tokens", integer(1, limits.max_output_tokens)),
        Field("min_tokens", integer(0, limits.max_output_tokens)),
        Field("presence_penalty", number(-2, 2)),
        Field("frequency_penalty", number(-2, 2)),
        Field("repetition_penalty", number(0.01, 10)),
        Field("stop", either(filled, many(filled, high=limits.max_stop), _STOP)),
        Field("stop_token_ids", many(integer(0, content.MAX_TOKEN_ID), high=limits.max_stop)),
        Field("ignore_eos", boolean),
        Field("skip_special_tokens", boolean),
        Field("include_stop_str_in_output", boolean),
        Field("response_format", content.response_format),
    )


_STREAM_OPTIONS = keyed(
    {
        "include_usage": boolean,
        "continuous_usage_stats": boolean,
        "include_obfuscation": boolean,
    }
)


def _chat(limits: RequestLimits) -> Rows:
    efforts = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
    thinking = keyed({"enable_thinking": boolean, "thinking": boolean})
    return (
        *_sampling(limits),
        Field(
            "messages",
            many(content.chat_message, low=1, high=limits.max_messages),
            required=True,
        ),
        Field("max_completion_tokens", integer(1, limits.max_output_tokens)),
        Field("logprobs", boolean),
        Field("top_logprobs", integer(0, 20)),
        Field("tools", many(content.chat_tool, low=1, high=content.MAX_TOOLS)),
        Field("tool_choice", content.tool_choice),
        Field("parallel_tool_calls", boolean),
        Field("reasoning_effort", one_of(*efforts)),
        Field("include_reasoning", boolean),
        Field("chat_template_kwargs", thinking),
    )


def _completions(limits: RequestLimits) -> Rows:
    return (
        *_sampling(limits),
        Field("prompt", content.prompt(limits.max_inputs), required=True),
        Field("logprobs", integer(0, 20)),
    )


def _responses(limits: RequestLimits) -> Rows:
    items = many(content.response_item, low=1, high=limits.max_messages)
    included = one_of("message.output_text.logprobs", "reasoning.encrypted_content")
    return (
        Field("model", filled, required=True),
        Field("input", either(text, items, "a string or a list of items"), required=True),
        Field("instructions", text),
        Field("max_output_tokens", integer(1, limits.max_output_tokens)),
        Field("stream", boolean),
        Field("temperature", number(0, 2)),
        Field("top_p", number(0, 1, above=True)),
        Field("top_logprobs", integer(0, 20)),
        Field("text", keyed({"format": content.text_format})),
        Field("tools", many(content.response_tool, high=content.MAX_TOOLS)),
        Field("tool_choice", content.tool_choice),
        Field("parallel_tool_calls", boolean),
        Field("reasoning", keyed({"effort": text, "summary": text})),
        Field("include", many(included, high=16)),
        Field("truncation", one_of("auto", "disabled")),
        Field("presence_penalty", number(-2, 2)),
        Field("frequency_penalty", number(-2, 2)),
        Field("seed", integer(-INT64 - 1, INT64)),
        Field("stop", either(filled, many(filled, high=limits.max_stop), _STOP)),
    )


def _messages(limits: RequestLimits) -> Rows:
    blocks = content_anthropic.blocks
    return (
        Field("model", filled, required=True),
        Field(
            "messages",
            many(content_anthropic.message, low=1, high=limits.max_messages),
            required=True,
        ),
        Field("max_tokens", integer(1, limits.max_output_tokens), required=True),
        Field("system", either(text, blocks, "a string or a list of blocks")),
        Field("stop_sequences", many(filled, high=limits.max_stop)),
        Field("stream", boolean),
        Field("temperature", number(0, 1)),
        Field("top_p", number(0, 1, above=True)),
        Field("top_k", integer(0)),
        Field("tools", many(content_anthropic.tool, high=content.MAX_TOOLS)),
        Field("tool_choice", content_anthropic.tool_choice),
        Field("thinking", content_anthropic.thinking),
    )


_TRUNCATE = Field("truncate_prompt_tokens", integer(-1, INT64))


def _embeddings(limits: RequestLimits) -> Rows:
    return (
        Field("model", filled, required=True),
        Field("input", content.prompt(limits.max_inputs), required=True),
        Field("encoding_format", one_of("float", "base64")),
        Field("dimensions", integer(1)),
        _TRUNCATE,
    )


def _rerank(limits: RequestLimits) -> Rows:
    return (
        Field("model", filled, required=True),
        Field("query", filled, required=True),
        Field("documents", many(text, low=1, high=limits.max_inputs), required=True),
        Field("top_n", integer(0)),
        _TRUNCATE,
    )


def _score(limits: RequestLimits) -> Rows:
    texts = either(text, many(text, low=1, high=limits.max_inputs), "a string or a list of strings")
    sides = dict.fromkeys(name for pair in api.SCORE_PAIRS for name in pair)
    return (
        Field("model", filled, required=True),
        *(Field(name, texts) for name in sides),
        _TRUNCATE,
        Field("encoding_format", anything),
    )
