"""What really happened to a request, as the server knows it, and how that travels."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import orjson


@dataclass(slots=True, eq=False)
class Truth:
    """One finished request. Times are `time.perf_counter()` seconds: on Linux, of the whole machine.

    Attributes:
        id: the request's header `x-request-id`, or `number`.
        number: its place in the order of arrival, from 0.
        stream: whether it was streamed.
        arrival_s: when the end of the request was read.
        start_s: when it was to leave the queue; `arrival_s` in the other modes.
        tokens_s: when each token was handed to the kernel; of a request that is not streamed, none.
        late_ms: how much later that was than planned. Freezes shift the plan and make nothing late.
        end_s: when the last byte was handed over.
        status: HTTP status of the answer.
        error: "", "http" (a drawn error), "broken" (a drawn break), "gone" (the client left), or the end
            that was asked for by name.
        prompt_tokens, output_tokens: as in `usage`; of a stream that ended early, those that were sent.
    """

    id: str
    number: int
    stream: bool
    arrival_s: float
    start_s: float
    end_s: float = 0.0
    status: int = 200
    error: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0
    # Arrays of doubles: lists would take four times the memory.
    tokens_s: array[float] = field(default_factory=lambda: array("d"))
    late_ms: array[float] = field(default_factory=lambda: array("d"))

    @property
    def first_s(self) -> float | None:
        """When the first token was handed over."""
        return self.tokens_s[0] if self.tokens_s else None

    @property
    def ttft_s(self) -> float | None:
        """From the arrival to the first token."""
        return self.tokens_s[0] - self.arrival_s if self.tokens_s else None

    @property
    def gaps_s(self) -> list[float]:
        """Between successive tokens."""
        return [after - before for before, after in pairwise(self.tokens_s)]

    def as_line(self) -> bytes:
        """One line of `/truth`."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values |= {"tokens_s": self.tokens_s.tolist(), "late_ms": self.late_ms.tolist()}
        return orjson.dumps(values | {"first_s": self.first_s}, option=orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_line(cls, line: bytes) -> Truth:
        """What `as_line` wrote."""
        values: dict[str, Any] = orjson.loads(line)
        del values["first_s"]
        for name in ("tokens_s", "late_ms"):
            values[name] = array("d", values[name])
        return cls(**values)
