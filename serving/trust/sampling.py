"""Checks of the fields that steer sampling and are no plain numbers: biases, and structured outputs.

https://docs.vllm.ai/en/latest/features/structured_outputs
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic_core import core_schema

from serving.trust import regexes
from serving.trust.checker import Check, WrongValueError
from serving.trust.checks import boolean, filled, integer, keyed, many, mapping, refused
from serving.trust.leftovers import Leftovers
from serving.trust.sizes import schema

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
# OpenAI's bound is 1,024 entries, too.
MAX_BIASES = 1024
MAX_CHOICES = 1024
# Of all choices together: compiling them takes time with the square of it, and cannot be interrupted.
MAX_CHOICE_CHARACTERS = 16 * 1024
# Engines tokenise each of them several times, on the loop that serves streams.
MAX_BAD_WORD = 64
# Variables that the chat templates of the catalogue's models read. Others would have no effect.
TEMPLATE_FLAGS = (
    *("enable_thinking", "thinking", "preserve_thinking", "clear_thinking", "drop_thinking"),
    "add_vision_id",
)
TEMPLATE_WORDS = ("reasoning_effort", "thinking_mode", "thinking_effort")
TEMPLATE_NUMBERS = ("thinking_budget",)


def short(characters: int) -> Check:
    """A string of a bounded length, not empty."""

    def test(value: Any) -> None:
        filled.test(value)
        if len(value) > characters:
            raise WrongValueError(f"'{{path}}' may have at most {characters} characters")

    return Check(
        {"type": "string", "minLength": 1, "maxLength": characters},
        core_schema.str_schema(strict=True, min_length=1, max_length=characters),
        test,
    )


# One spelling of each: a token may have one bias.
_TOKEN = re.compile("(?:0|[1-9][0-9]{0,9})")


def _biases(value: Any) -> Any:
    mapping.test(value)
    if len(value) > MAX_BIASES:
        raise WrongValueError(f"'{{path}}' may have at most {MAX_BIASES} entries")
    for token, bias in value.items():
        if not _TOKEN.fullmatch(token):
            raise WrongValueError("'{path}' must have token ids as its keys")
        is_number = isinstance(bias, (int, float)) and not isinstance(bias, bool)
        if not is_number or not -100 <= bias <= 100:
            raise WrongValueError("'{path}' must have numbers from -100 to 100 as its values")
    return value


def _walk_biases(value: Any, left: Leftovers) -> Iterator[None]:
    _biases(value)
    yield


# `logit_bias`: numbers by token id.
biases = Check(
    {
        "type": "object",
        "maxProperties": MAX_BIASES,
        "propertyNames": {"pattern": f"^{_TOKEN.pattern}$"},
        "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
    },
    core_schema.no_info_plain_validator_function(_biases),
    walk=_walk_biases,
)


def _regex_test(value: Any) -> None:
    filled.test(value)
    if (why := regexes.objection(value)) is not None:
        raise WrongValueError(f"'{{path}}' is not supported: {why}")


def _regex(value: Any) -> Any:
    _regex_test(value)
    return value


_KINDS: dict[str, Check] = {
    "json": schema,
    "regex": Check(
        {"type": "string", "minLength": 1, "maxLength": regexes.MAX_CHARACTERS},
        core_schema.no_info_plain_validator_function(_regex),
        _regex_test,
    ),
    "choice": many(filled, low=1, high=MAX_CHOICES),
    "grammar": refused("a grammar can stop an engine; use 'regex', 'choice' or 'json'"),
    "json_object": boolean,
}
_OFFERED = tuple(name for name in _KINDS if name != "grammar")
_OPTIONS = dict.fromkeys(("disable_any_whitespace", "disable_additional_properties"), boolean)
_ANY_KIND = keyed(_KINDS | _OPTIONS)


def _walk_outputs(value: Any, left: Leftovers) -> Iterator[None]:
    yield from _ANY_KIND.in_steps(value, left)
    if sum(name in value for name in _KINDS) != 1:
        raise WrongValueError(f"'{{path}}' must have exactly one of: {', '.join(_OFFERED)}")
    if sum(map(len, value.get("choice", ()))) > MAX_CHOICE_CHARACTERS:
        raise WrongValueError(
            f"'{{path}}' may have at most {MAX_CHOICE_CHARACTERS} characters together"
        ).within(".choice")


def _structured_outputs() -> Check:
    kinds = [keyed({name: _KINDS[name]} | _OPTIONS, (name,)) for name in _OFFERED]
    # Choices are added up by the walk.
    cores: list[Any] = [
        kind.core for name, kind in zip(_OFFERED, kinds, strict=True) if name != "choice"
    ]
    core = core_schema.union_schema(cores, mode="left_to_right")
    return Check({"oneOf": [kind.schema for kind in kinds]}, core, walk=_walk_outputs)


# vLLM's `structured_outputs`.
structured_outputs = _structured_outputs()
# Anything else would have no effect, or reach into how an engine renders a prompt.
template_arguments = keyed(
    dict.fromkeys(TEMPLATE_FLAGS, boolean)
    | dict.fromkeys(TEMPLATE_WORDS, short(64))
    | dict.fromkeys(TEMPLATE_NUMBERS, integer(0, 1_000_000))
)
