"""The target of an attack: its address, its keys, and the limits that it claims to keep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from serving import api

CHAT = api.CHAT


class NotApplicableError(Exception):
    """The case needs something that this target does not have; the text says what."""


@dataclass(frozen=True)
class Target:
    """An endpoint under attack.

    Attributes:
        key: the attacker's, "" where the endpoint wants none; `other_key` is another tenant's.
        model: answers chat completions; `other_model` is one that the attacker's key may not use.
        cut_s: within so many seconds a connection that makes no progress must be cut.
        max_body_bytes: the endpoint's own limit.
        long_answers: the engine answers `max_tokens` of a hundred thousand, as fast as it is read.
        silent_connections: how many connections without a key are opened at once at most.
    """

    host: str
    port: int
    model: str
    key: str = ""
    other_key: str = ""
    other_model: str = ""
    cut_s: float = 90.0
    max_body_bytes: int = 2 * 1024 * 1024
    long_answers: bool = False
    silent_connections: int = 500

    @classmethod
    def at(cls, url: str, **facts: object) -> Target:
        """The target at an `http://host:port` address.

        Raises:
            ValueError: it is not such an address. TLS ends at a proxy: attack what is behind it.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r} is not an address such as http://127.0.0.1:8000")
        return cls(parts.hostname, parts.port or 80, **facts)  # type: ignore[arg-type]

    @property
    def authority(self) -> str:
        """For the header Host."""
        return f"{self.host}:{self.port}"

    def head(self, method: str, path: str, *lines: str, key: str | None = None) -> bytes:
        """A request's head, with host and key, and these lines beside them."""
        key = self.key if key is None else key
        known = [f"authorization: Bearer {key}"] if key else []
        text = [f"{method} {path} HTTP/1.1", f"host: {self.authority}", *known, *lines]
        return "\r\n".join(text).encode("latin-1") + b"\r\n\r\n"

    def post(self, body: bytes, *lines: str, path: str = CHAT, key: str | None = None) -> bytes:
        """A POST of JSON."""
        lines = ("content-type: application/json", f"content-length: {len(body)}", *lines)
        return self.head("POST", path, *lines, key=key) + body

    def chat(self, **fields: object) -> bytes:
        """The body of a small chat completion."""
        return json.dumps(self.chat_fields(**fields)).encode()

    def chat_fields(self, **fields: object) -> Mapping[str, object]:
        """The same, before it is encoded."""
        messages = [{"role": "user", "content": "Bonjour"}]
        return {"model": self.model, "messages": messages, "max_tokens": 4} | fields
