"""What gateway and replica say to each other beside the request and the answer. Pure.

Gateways send a token with each request. Replicas say what an answer cost: in a header when it is sent whole,
in a comment as the last event of a stream, which the gateway takes out. Comments mean nothing to clients:
https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

# Serve's deployments in a model's application: its replicas, and those that compute prompts for them.
MODEL_DEPLOYMENT = "ModelReplica"
PREFILL_DEPLOYMENT = "PrefillReplica"

TOKEN_HEADER = "x-comptoir-token"  # noqa: S105 - the header's name
# Requests for this model that wait in the gateway that sends this one.
QUEUED_HEADER = "x-comptoir-queued"
USAGE_HEADER = "x-comptoir-usage"
USAGE_MARK = b": comptoir-usage "
_USAGE_EVENT = re.compile(rb"(?:^|(?<=\n\n)): comptoir-usage (\d+ \d+ \d+)\n\n")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answer, as the engine counted them; `cached_tokens` are part of `prompt_tokens`."""

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int

    def __str__(self) -> str:
        return f"{self.prompt_tokens} {self.cached_tokens} {self.output_tokens}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what `str` wrote; None for anything else."""
        parts = text.split()
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
            return None
        prompt, cached, output = map(int, parts)
        return cls(prompt, cached, output)

    def as_event(self) -> bytes:
        """The last event of a stream."""
        return USAGE_MARK + str(self).encode() + b"\n\n"


def take_usage(events: bytes) -> tuple[bytes, Usage | None]:
    """Complete events without the replica's usage comment, and what it said."""
    if USAGE_MARK not in events:
        return events, None
    found = _USAGE_EVENT.search(events)
    if found is None:
        return events, None
    return events[: found.start()] + events[found.end() :], Usage.parse(found.group(1).decode())
