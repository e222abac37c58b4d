"""Engine arguments in a file: a mapping without the arguments that other keys or the host decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

_NEVER: Mapping[str, str] = {
    "trust_remote_code": "code from a model repository is never run",
    "model": "use `catalogue` or `source`",
    "served_model_name": "use `id` and `aliases`",
    "load_format": "weights are loaded as safetensors only",
    "lora_modules": "use `adapters`",
    "enable_log_requests": "prompts are never logged",
    "enable_log_outputs": "answers are never logged",
    "log_error_stack": "stack traces can hold request text",
}


def _allowed(value: dict[str, Any]) -> dict[str, Any]:
    for key, reason in _NEVER.items():
        if key in value:
            raise ValueError(f"{key} cannot be set here: {reason}")
    for key in ("trust_remote_code", "load_format"):
        if _holds(value, key):
            raise ValueError(f"{key} cannot be set here: {_NEVER[key]}")
    return value


def _holds(value: Any, key: str) -> bool:
    """Whether a key stands anywhere inside."""
    if isinstance(value, dict):
        return key in value or any(_holds(member, key) for member in value.values())
    return isinstance(value, list) and any(_holds(member, key) for member in value)


EngineArgs = Annotated[dict[str, Any], AfterValidator(_allowed)]
