"""The table of request fields: what each endpoint sends on, reads itself, drops and refuses.

Fields that reach into the engine (chat templates, cache salts, KV transfer, priorities, prompt
embeddings, media options) are refused by name; fields that only other services need, and those without a
row, are left out, so that ordinary clients work, and the client is told.
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
from serving.trust.common_fields import EVERYWHERE
from serving.trust.endpoint import Endpoint, Field
from serving.trust.images import ImageLimits
from serving.trust.sampling import (
    EFFORTS,
    MAX_BAD_WORD,
    MAX_BIASES,
    biases,
    short,
    structured_outputs,
    template_arguments,
)
from serving.trust.sifted import words
from serving.trust.sizes import anything
from serving.trust.spellings import SPELLINGS

Rows = tuple[Field, ...]

_STOP = "a string that is not empty, or a list of such strings"


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
        "count_tokens": _count_tokens(limits),
        "tokenize": _tokenize(limits),
        "detokenize": _DETOKENIZE,
    }
    images = ImageLimits(limits.max_images, limits.max_image_pixels)
    return {
        path: Endpoint(
            path,
            _table((*tables[row.kind], *(one.row for one in SPELLINGS.get(row.kind, ())))),
            row.tasks,
            images,
            streams=row.generates,
            dialect=row.dialect,
            pairs=api.SCORE_PAIRS if row.kind == "score" else (),
            one_of=("messages", "prompt") if row.kind == "tokenize" else (),
            spellings=SPELLINGS.get(row.kind, ()),
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
        Field("logit_bias", biases, absent=({},)),
        Field("allowed_token_ids", many(_TOKEN_ID, low=1, high=MAX_BIASES)),
        Field("bad_words", many(short(MAX_BAD_WORD), high=limits.max_stop), absent=([],)),
        _stop(limits),
        Field("stop_token_ids", many(_TOKEN_ID, high=limits.max_stop)),
        Field("ignore_eos", boolean),
        Field("skip_special_tokens", boolean),
        Field("spaces_between_special_tokens", boolean),
        Field("add_special_tokens", boolean),
        Field("include_stop_str_in_output", boolean),
        Field("response_format", content.response_format),
        Field("structured_outputs", structured_outputs),
        Field("echo", boolean, absent=(False,)),
        _TRUNCATE,
    )


def _stop(limits: RequestLimits) -> Field:
    return Field("stop", either(filled, many(filled, high=limits.max_stop), _STOP))


_TOKEN_ID = integer(0, content.MAX_TOKEN_ID)
_TRUNCATE = Field("truncate_prompt_tokens", integer(-1, INT64))
_TEMPLATE = Field("chat_template_kwargs", template_arguments, absent=({},))
_STREAM_OPTIONS = keyed(
    {
        "include_usage": boolean,
        "continuous_usage_stats": boolean,
        "include_obfuscation": boolean,
    }
)


def _chat(limits: RequestLimits) -> Rows:
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
        Field("tools", content.chat_tools),
        Field("tool_choice", content.tool_choice, synonyms=(("any", "required"),)),
        Field("parallel_tool_calls", boolean),
        Field("reasoning_effort", one_of(*EFFORTS)),
        Field("include_reasoning", boolean),
        Field("thinking_token_budget", integer(0, limits.max_output_tokens)),
        Field("continue_final_message", boolean, absent=(False,)),
        Field("add_generation_prompt", boolean, absent=(True,)),
        _TEMPLATE,
    )


def _completions(limits: RequestLimits) -> Rows:
    return (
        *_sampling(limits),
        Field("prompt", content.prompt(limits.max_inputs), required=True),
        Field("logprobs", integer(0, 20)),
    )


def _responses(limits: RequestLimits) -> Rows:
    items = many(content.response_item, low=1, high=limits.max_messages)
    included = words("message.output_text.logprobs", "reasoning.encrypted_content", high=16)
    return (
        Field("model", filled, required=True),
        Field("input", either(text, items, "a string or a list of items"), required=True),
        Field("instructions", text),
        Field("max_output_tokens", integer(1, limits.max_output_tokens)),
        Field("stream", boolean),
        Field("temperature", number(0, 2)),
        Field("top_p", number(0, 1, above=True)),
        Field("top_k", integer(-1)),
        Field("min_p", number(0, 1)),
        Field("top_logprobs", integer(0, 20)),
        Field("text", keyed({"format": content.text_format})),
        Field("structured_outputs", structured_outputs),
        Field("tools", content.response_tools),
        Field("tool_choice", content.tool_choice),
        Field("parallel_tool_calls", boolean),
        Field("reasoning", keyed({"effort": text, "summary": text})),
        Field("include_reasoning", boolean),
        _TEMPLATE,
        Field("include", included),
        Field("truncation", one_of("auto", "disabled")),
        Field("presence_penalty", number(-2, 2)),
        Field("frequency_penalty", number(-2, 2)),
        Field("repetition_penalty", number(0.01, 10)),
        Field("logit_bias", biases, absent=({},)),
        Field("seed", integer(-INT64 - 1, INT64)),
        _stop(limits),
        Field("stop_token_ids", many(_TOKEN_ID, high=limits.max_stop)),
    )


def _count_tokens(limits: RequestLimits) -> Rows:
    return (
        Field("model", filled, required=True),
        Field(
            "messages",
            many(content_anthropic.message, low=1, high=limits.max_messages),
            required=True,
        ),
        Field("system", either(text, content_anthropic.blocks, "a string or a list of blocks")),
        Field("tools", content_anthropic.tools),
        Field("tool_choice", content_anthropic.tool_choice),
        Field("thinking", content_anthropic.thinking),
        Field("output_config", content_anthropic.output_config, absent=({},)),
        _TEMPLATE,
    )


def _messages(limits: RequestLimits) -> Rows:
    return (
        *_count_tokens(limits),
        Field("max_tokens", integer(1, limits.max_output_tokens), required=True),
        Field("stop_sequences", many(filled, high=limits.max_stop)),
        Field("stream", boolean),
        Field("temperature", number(0, 1)),
        Field("top_p", number(0, 1, above=True)),
        Field("top_k", integer(0)),
    )


def _tokenize(limits: RequestLimits) -> Rows:
    return (
        Field("model", filled, required=True),
        Field("prompt", text),
        Field("messages", many(content.chat_message, low=1, high=limits.max_messages)),
        Field("tools", content.chat_tools),
        Field("add_special_tokens", boolean),
        Field("return_token_strs", boolean),
        Field("continue_final_message", boolean, absent=(False,)),
        Field("add_generation_prompt", boolean, absent=(True,)),
        _TEMPLATE,
    )


_DETOKENIZE = (
    Field("model", filled, required=True),
    Field("tokens", content.token_ids, required=True),
)


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
