"""Do two servers answer the same? The same prompts at temperature 0, streamed and whole."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass

from loadtests.bench.compare.clients import Target
from loadtests.bench.compare.contenders import MODEL
from loadtests.bench.compare.server import complete

PROMPTS = (
    "Bonjour",
    "Count to a hundred",
    "What does a gateway in front of an engine cost?",
    "写一首关于春天的诗",
    "List three European capitals as JSON",
)
TOKENS = 48
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Comparison:
    """How many texts were compared, and how many of them differ."""

    texts: int
    different: int

    @property
    def is_same(self) -> bool:
        """Whether there was something to compare and all of it is the same."""
        return self.texts > 0 and not self.different


Texts = Mapping[str, str | None]


def collect(target: Target) -> dict[str, str | None]:
    """The text of each prompt, streamed and whole; None where a server gave none."""
    found: dict[str, str | None] = {}
    for prompt in PROMPTS:
        found[f"{prompt} (whole)"] = complete(target, prompt, TOKENS)
        found[f"{prompt} (streamed)"] = _streamed(target, prompt)
    return found


def compare(one: Texts, other: Texts) -> Comparison:
    """Hold texts against each other; a missing one is a different one."""
    different = sum(text is None or text != other.get(name) for name, text in one.items())
    return Comparison(len(one), different)


def text_of(stream: bytes) -> str | None:
    """The text of a stream of chat completion chunks; None when it does not end properly."""
    pieces: list[str] = []
    for line in stream.split(b"\n"):
        if not line.startswith(b"data: "):
            continue
        if line == b"data: [DONE]":
            return "".join(pieces)
        for choice in json.loads(line[len(b"data: ") :]).get("choices", ()):
            pieces.append(choice["delta"].get("content") or "")
    return None


def _streamed(target: Target, prompt: str) -> str | None:
    host, _, port = target.address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    headers = {"content-type": "application/json", **target.headers}
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        response = connection.getresponse()
        return text_of(response.read()) if response.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError, LookupError):
        return None
    finally:
        connection.close()
