"""Other spellings of fields, which clients of other services use: read here, and sent on as vLLM calls them.

Mistral's `random_seed` (https://docs.mistral.ai/api), the `thinking` of DeepSeek, GLM and Kimi
(https://api-docs.deepseek.com, https://docs.z.ai/api-reference), Qwen's `enable_thinking`
(https://www.alibabacloud.com/help/en/model-studio/qwen-api-reference), Anthropic's older `output_format`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving import api
from serving.trust import content_anthropic
from serving.trust.checks import boolean, either, integer, keyed, one_of
from serving.trust.endpoint import Spelling
from serving.trust.sampling import EFFORTS

Body = dict[str, Any]


def _thinks(body: Body, value: Any) -> None:
    on = value if isinstance(value, bool) else value["type"] != "disabled"
    # Some templates read the one, some the other.
    _merge(body, "chat_template_kwargs", {"enable_thinking": on, "thinking": on})


def _seed(body: Body, value: Any) -> None:
    _set(body, "seed", value)


def _effort(body: Body, value: Any) -> None:
    if (effort := value.get("effort")) is not None:
        _set(body, "reasoning_effort", effort)
    if (enabled := value.get("enabled")) is not None:
        _thinks(body, enabled)


def _format(body: Body, value: Any) -> None:
    _merge(body, "output_config", {"format": value})


def _merge(body: Body, name: str, members: Body) -> None:
    given = body.get(name)
    if given is None:
        body[name] = members
    elif isinstance(given, dict):
        body[name] = members | {key: value for key, value in given.items() if value is not None}


def _set(body: Body, name: str, value: Any) -> None:
    if body.get(name) is None:
        body[name] = value


_KIND = keyed({"type": one_of("enabled", "disabled", "adaptive", "auto")}, ("type",))
_CHAT = (
    Spelling("random_seed", integer(), _seed, "seed"),
    Spelling("enable_thinking", boolean, _thinks, "chat_template_kwargs"),
    Spelling(
        "thinking",
        either(boolean, _KIND, "a boolean, or an object with a type"),
        _thinks,
        "chat_template_kwargs",
    ),
    Spelling(
        "reasoning",
        keyed({"effort": one_of(*EFFORTS), "enabled": boolean}),
        _effort,
        "reasoning_effort",
    ),
)
_MESSAGES = (
    Spelling("output_format", content_anthropic.output_format, _format, "output_config.format"),
)
SPELLINGS: Mapping[api.Kind, tuple[Spelling, ...]] = {
    "chat": _CHAT,
    "completions": (_CHAT[0],),
    "messages": _MESSAGES,
    "count_tokens": _MESSAGES,
}
