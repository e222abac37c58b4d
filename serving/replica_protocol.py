"""The protocol between gateway and replica, beside the request and the answer. Pure.

Gateways send a token with each request, and who pays for it. Replicas say what an answer cost: in a header
when it is sent whole, in a comment as the last event of a stream, which the gateway takes out. Comments mean
nothing to clients: https://html.spec.whatwg.org/multipage/server-sent-events.html. Said so or not,
the replica keeps it as a bill until a gateway acknowledges that (docs/metering.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self

import orjson

from serving.records import record

# Serve's deployments in a model's application: its replicas, and those that compute prompts for them.
MODEL_DEPLOYMENT = "ModelReplica"
PREFILL_DEPLOYMENT = "PrefillReplica"

TOKEN_HEADER = "x-comptoir-token"  # noqa: S105 - the header's name
# Requests for this model that wait in the gateway that sends this one.
QUEUED_HEADER = "x-comptoir-queued"
REQUEST_ID_HEADER = "x-request-id"
# The gateway that sends the request, and for which key: two words.
PAYER_HEADER = "x-comptoir-payer"
BILLS_PATH = "/comptoir/bills"
USAGE_HEADER = "x-comptoir-usage"
USAGE_MARK = b": comptoir-usage "
_USAGE_EVENT = re.compile(rb"(?:^|(?<=\n\n)): comptoir-usage ([\w -]+)\n\n")
_BILL_ID = re.compile(r"[0-9a-f]{16}-[0-9]{1,18}")
_COUNTS = 6
# What one collection brings and acknowledges at most.
MAX_COLLECTED = 1000
MAX_ACKNOWLEDGED = 10_000


@record
class Usage:
    """Tokens of one request, as the engine counted them.

    `prompt_tokens` counts a prompt once for each of the `sequences` made from it, as the engine does;
    `distinct_prompt_tokens` counts it once, as the client's `usage` does. `cached_tokens` are part of
    `prompt_tokens`, `reasoning_tokens` of `output_tokens`. `bill` is the id of the bill that says so; without
    one, nobody keeps it.
    """

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int = 0
    distinct_prompt_tokens: int = 0
    sequences: int = 0
    bill: str = ""

    def __str__(self) -> str:
        text = f"{self.prompt_tokens} {self.cached_tokens} {self.output_tokens}"
        if not self.bill:
            return text
        more = f"{self.reasoning_tokens} {self.distinct_prompt_tokens} {self.sequences}"
        return f"{text} {more} {self.bill}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what `str` wrote; None for anything else."""
        counts, bill = text.split(), ""
        if len(counts) == _COUNTS + 1:
            bill = counts.pop()
            if not _BILL_ID.fullmatch(bill):
                return None
        elif len(counts) != 3:
            return None
        if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in counts):
            return None
        prompt, cached, output, *more = map(int, counts)
        reasoning, distinct, sequences = more or (0, 0, 0)
        return cls(prompt, cached, output, reasoning, distinct, sequences, bill)

    def __add__(self, other: Usage) -> Usage:
        """The sum, without a bill."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.distinct_prompt_tokens + other.distinct_prompt_tokens,
            self.sequences + other.sequences,
        )

    def as_event(self) -> bytes:
        """The last event of a stream."""
        return USAGE_MARK + str(self).encode() + b"\n\n"


def take_usage(events: bytes) -> tuple[bytes, Usage | None]:
    """Complete events without the replica's usage comment, and the usage in it."""
    if USAGE_MARK not in events:
        return events, None
    found = _USAGE_EVENT.search(events)
    usage = None if found is None else Usage.parse(found.group(1).decode())
    if found is None or usage is None:
        return events, None
    return events[: found.start()] + events[found.end() :], usage


@record
class Bill:
    """The cost of one request at one replica; `id` is unique for ever.

    `key` stands for the API key (`tenancy.keys.key_id`), "" where there are none. `adapter` is the name of a
    LoRA adapter, or "". `is_prefill`: the replica only computed the prompt, which another one bills as well.
    `outcome` is ok, failed or aborted. `ended_s` is Unix time.
    """

    id: str
    request_id: str
    key: str
    model: str
    adapter: str
    path: str
    is_prefill: bool
    outcome: str
    ended_s: float
    usage: Usage

    @classmethod
    def parse(cls, value: Any) -> Self | None:
        """Read one of the bills that `Collected` wrote; None for anything else."""
        try:
            fields = dict(value)
            return cls(**fields | {"usage": Usage(**fields["usage"], bill=fields["id"])})
        except (TypeError, ValueError, KeyError):
            return None


@dataclass(frozen=True, slots=True)
class Collection:
    """A gateway's call for bills; what it acknowledges has been counted and recorded."""

    gateway: str
    acknowledged: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """As JSON."""
        return orjson.dumps({"gateway": self.gateway, "acknowledged": self.acknowledged})

    @classmethod
    def parse(cls, body: bytes) -> Self | None:
        """Read what `encode` wrote; None for anything else."""
        try:
            value = orjson.loads(body)
            gateway, ids = value["gateway"], value["acknowledged"]
        except (ValueError, TypeError, KeyError):
            return None
        if not isinstance(gateway, str) or not isinstance(ids, list):
            return None
        return cls(gateway, tuple(one for one in ids[:MAX_ACKNOWLEDGED] if isinstance(one, str)))


def encode_bills(bills: Iterable[Bill]) -> bytes:
    """The answer to a `Collection`."""
    values = []
    for bill in bills:
        value = asdict(bill)
        del value["usage"]["bill"]
        values.append(value)
    return orjson.dumps({"bills": values})


def parse_bills(body: bytes) -> list[Bill]:
    """Read what `encode_bills` wrote; what is no bill is left out."""
    try:
        values = orjson.loads(body)["bills"]
    except (ValueError, TypeError, KeyError):
        return []
    bills = map(Bill.parse, values if isinstance(values, list) else ())
    return [bill for bill in bills if bill is not None]
