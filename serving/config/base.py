"""The base of every configuration model: frozen, unknown keys refused, one sentence for each error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from serving.errors import ConfigError

ENV_PREFIX = "COMPTOIR_"
T = TypeVar("T", bound=BaseModel)
# What YAML calls the things that pydantic has Python's names for.
_KINDS = dict.fromkeys(
    ("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"), "must be a list"
) | dict.fromkeys(
    ("dict_type", "mapping_type", "model_type", "model_attributes_type", "dataclass_type"),
    "must be a mapping",
)
# The same for what pydantic says of values; the first that fits is put in its place.
_WORDS = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"Input should be a valid integer.*", "must be a whole number"),
        (r"Input should be a valid number.*", "must be a number"),
        (r"Input should be a valid boolean.*", "must be true or false"),
        (r"Input should be a valid string", "must be text"),
        (r"Input should be greater than or equal to ", "must be at least "),
        (r"Input should be less than or equal to ", "must be at most "),
        (r"Input should be greater than ", "must be above "),
        (r"Input should be less than ", "must be below "),
        (r"Input should be ", "must be "),
        (r"\w+ should have at least (\d+) (item|character)s?.*", r"must have \1 \2 or more"),
        (r"\w+ should have at most (\d+) (item|character)s?.*", r"may have \1 \2s at most"),
    )
)
# YAML 1.1 wants a point and a sign in these, JSON and people do not.
_EXPONENT = re.compile(r"[+-]?[0-9.]+[eE][+-]?[0-9]+")


class FrozenConfig(BaseModel):
    """Base of all parts of a configuration file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )


def validated(cls: type[T], args: Mapping[str, Any], where: str) -> T:
    """Build a model, turning pydantic's complaint into one sentence.

    Raises:
        ConfigError: naming the first invalid key.
    """
    try:
        return cls.model_validate(dict(args))
    except ValidationError as error:
        raise config_error(error, where, known=cls) from None


def config_error(
    error: ValidationError, where: str, *, known: type[BaseModel] | None = None, env: bool = False
) -> ConfigError:
    errors = error.errors(include_url=False, include_context=False)
    # A misspelt key is reported twice, as missing and as unknown: the second explains more.
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    key = ".".join(str(part) for part in first["loc"])
    if env:
        key = ENV_PREFIX + key.upper()
    if first["type"] == "extra_forbidden":
        model = _model_at(known, first["loc"][:-1]) if known else None
        text = unknown_key(str(first["loc"][-1]), _keys(model) if model else ())
    elif first["type"] == "missing":
        text = "is required"
    else:
        text = _KINDS.get(first["type"]) or _plain(first["msg"])
        if first["type"] == "string_type" and isinstance(first["input"], bool | int | float):
            text += ": put it in quotes"
        elif first["type"].endswith("_parsing") and _EXPONENT.fullmatch(str(first["input"])):
            text += f": YAML takes {first['input']} for text; write all digits"
    return ConfigError(f"{where}: {key}: {text}" if key else f"{where}: {text}", param=key or where)


def _plain(text: str) -> str:
    """A message of pydantic in our words; our own messages unchanged."""
    for pattern, words in _WORDS:
        if pattern.match(text):
            return pattern.sub(words, text, count=1)
    return text.removeprefix("Value error, ")


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The message for an unknown key: the known keys, and the one that was probably meant."""
    names = list(known)
    text = "unknown key" + (f"; known: {', '.join(names)}" if names else "")
    near = difflib.get_close_matches(key, names, n=1)
    return text + (f"; did you mean {near[0]}?" if near else "")


def _keys(model: type[BaseModel]) -> list[str]:
    """The keys as written in a file: `from`, not `from_`."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_at(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model that holds the key at this place; None where it is not one of ours."""
    kind: Any = model
    for part in path:
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        elif isinstance(part, str):
            if not _is_model(kind) or part not in kind.model_fields:
                return None
            kind = kind.model_fields[part].annotation
            if get_origin(kind) is not dict:
                kind = next(iter(get_args(kind)), kind)
    return kind if _is_model(kind) else None


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
