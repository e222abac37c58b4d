"""Configuration of API keys: name, scopes, models, priority and weight of each; and the file of keys."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from serving.config.admission import Priority
from serving.config.base import FrozenConfig, validated
from serving.config.paths import expanded
from serving.config.yaml_file import read
from serving.errors import ConfigError

# inference: ask models, see oneself. metrics: read all of /metrics and nothing else.
# operator: all of /status and /metrics, to see how the site does and to manage rollouts.
Scope = Literal["inference", "metrics", "operator"]
SCOPES: tuple[Scope, ...] = ("inference", "metrics", "operator")
INFERENCE: tuple[Scope, ...] = ("inference",)

_KEY_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class KeyConfig(FrozenConfig):
    """One API key: only its SHA-256 is stored. `comptoir keys new NAME` makes one."""

    name: str
    hash: str
    scopes: tuple[Scope, ...] = Field(default=INFERENCE, min_length=1)
    models: tuple[str, ...] = ("*",)
    priority: Priority = "standard"
    weight: float = Field(default=1.0, gt=0, le=1000)

    @field_validator("name")
    @classmethod
    def _is_name(cls, value: str) -> str:
        if not _KEY_NAME.fullmatch(value):
            raise ValueError(
                "must be 1 to 64 ASCII letters, digits, '.', '_' or '-', the first a letter or digit, "
                f"not {value!r}"
            )
        return value

    @field_validator("hash")
    @classmethod
    def _is_hash(cls, value: str) -> str:
        if not _KEY_HASH.fullmatch(value):
            raise ValueError(
                "must be 'sha256:' and 64 hexadecimal digits, as `comptoir keys new` prints it"
            )
        return value


def hash_key(key: str) -> str:
    """The form in which a key is stored. Keys carry 256 random bits, so a plain hash is enough."""
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def twice(keys: Iterable[KeyConfig]) -> str | None:
    """The conflict between these keys: a name or a hash that appears twice; None without one."""
    found = tuple(keys)
    names, hashes = Counter(key.name for key in found), Counter(key.hash for key in found)
    for key in found:
        if names[key.name] > 1:
            return f"keys: the name {key.name!r} appears twice"
        if hashes[key.hash] > 1:
            return f"keys: the hash of {key.name!r} appears twice"
    return None


def read_keys(path: Path) -> tuple[KeyConfig, ...]:
    """The keys in a `keys_file`: a list, or a mapping with `keys`.

    Raises:
        ConfigError: it cannot be read, is not YAML, contains no key or an invalid one.
    """
    try:
        content = read(expanded(path, "keys_file"), "keys_file")
    except ConfigError as error:
        raise ConfigError(f"keys_file {error.message}", param="keys_file") from None
    entries = content.get("keys") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise ConfigError(
            f"keys_file {str(path)!r} must hold a list of keys, or a mapping with `keys`",
            param="keys_file",
        )
    if not entries:
        # Without keys everyone is let in, which nobody means who names a file of keys.
        raise ConfigError(
            f"keys_file {str(path)!r} holds no key: add one (`comptoir keys new NAME` makes it) or "
            "remove keys_file",
            param="keys_file",
        )
    return tuple(
        validated(KeyConfig, entry if isinstance(entry, dict) else {}, f"keys_file[{index}]")
        for index, entry in enumerate(entries)
    )
