"""What every configuration model shares: frozen, unknown keys refused, one sentence for what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from serving.errors import ConfigError

ENV_PREFIX = "COMPTOIR_"
T = TypeVar("T", bound=BaseModel)


class FrozenConfig(BaseModel):
    """Base of everything that stands in a configuration file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )


def validated(cls: type[T], args: Mapping[str, Any], where: str) -> T:
    """Build a model, turning pydantic's complaint into one sentence.

    Raises:
        ConfigError: naming the first key that does not fit.
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
        text = "unknown key" + (f"; known are: {', '.join(_keys(model))}" if model else "")
    elif first["type"] == "missing":
        text = "is required"
    else:
        text = first["msg"].removeprefix("Value error, ")
    return ConfigError(f"{where}: {key}: {text}" if key else f"{where}: {text}", param=key or where)


def _keys(model: type[BaseModel]) -> list[str]:
    """The keys as they are written in a file: `from`, not `from_`."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_at(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model that holds the key at this place; None where it is not one of ours."""
    for part in path:
        if isinstance(part, str):
            if part not in model.model_fields:
                return None
            kind = model.model_fields[part].annotation
            kind = next(iter(get_args(kind)), kind)
            if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
                return None
            model = kind
    return model
