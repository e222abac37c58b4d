"""Finds secrets written into a manifest instead of referred to. Pure; values are never repeated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from serving.kubernetes.walk import strings

_NAME = re.compile(
    r"(?i)(^|[_.-])(pass(word|wd|phrase)?|secret|token|api_?key|access_?key|private_?key)$"
)
# Settings whose names end like secrets.
_HARMLESS = frozenset({"RAY_ENABLE_K8S_TOKEN_AUTH"})
_VALUES: Mapping[str, re.Pattern[str]] = {
    "a key of this gateway": re.compile(r"\bsk-comptoir-[\w-]{16,}"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_-]{20,}"),
    "a token of the model hub": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "an access key of a cloud": re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a token of a code host": re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{30,}|glpat-[\w-]{20,})"),
    "a signed token": re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in an address": re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@]*:[^\s/@]+@"),
}


def secret_texts(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Path and apparent kind of every secret value."""
    if manifest.get("kind") == "Secret":
        for field in ("data", "stringData"):
            if manifest.get(field):
                yield field, "a Secret with its values"
        return
    yield from _literal_variables(manifest, "")
    for path, text in strings(dict(manifest)):
        for what, pattern in _VALUES.items():
            if pattern.search(text):
                yield path, f"looks like {what}"
                break


def _literal_variables(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """`{name: …, value: …}` pairs, and `redisPassword: {value: …}`, whose names say what they are."""
    if isinstance(value, list):
        for index, member in enumerate(value):
            yield from _literal_variables(member, f"{path}[{index}]")
        return
    if not isinstance(value, Mapping):
        return
    name = value.get("name")
    literal = value.get("value")
    if isinstance(name, str) and _is_secret(name) and isinstance(literal, str) and literal:
        yield f"{path}.value", f"the value of {name}"
    for key, member in value.items():
        where = f"{path}.{key}" if path else str(key)
        is_one = str(key).endswith(("Password", "Secret", "Token"))
        if is_one and isinstance(member, Mapping) and member.get("value"):
            yield f"{where}.value", f"the value of {key}"
        yield from _literal_variables(member, where)


def _is_secret(name: str) -> bool:
    return name not in _HARMLESS and bool(_NAME.search(name))
