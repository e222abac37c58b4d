"""One request as the generator saw it, and the files of a run. Times are seconds since the run began.

A run is a folder: scenario.yaml, records.jsonl (one `Record` a line), lag.jsonl, metrics.jsonl, summary.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

RECORDS, LAG, METRICS, SUMMARY = "records.jsonl", "lag.jsonl", "metrics.jsonl", "summary.json"
SCENARIO, REPORT = "scenario.yaml", "report.html"


@dataclass(slots=True)
class Record:
    """One request.

    Attributes:
        number: its place in the plan (open loop), or the order of sending (closed loop).
        class_name, kind, model, tenant: from its class.
        conversation, turn: which conversation it belongs to, and its place there, from 0.
        intended_s: when it was to be sent; in a closed loop, when its user was free to.
        sent_s: when its sending began; connecting, where no connection was open, is part of it.
        first_s: when the first chunk with content or reasoning text came; None if none did.
        end_s: when the answer was complete, or failed.
        status: HTTP status; 0 if there was none.
        error: "", of a complete answer, or the word of another end (loadtests.answers.ends).
        prompt_tokens, output_tokens, cached_tokens: from the answer's `usage`; -1 if it gave none.
        asked_input, asked_output: token counts of the plan.
        gaps_ms: milliseconds between successive chunks with text.
        answered_by: the header `x-comptoir-model`, where there is one.
        worker: which generator process sent it.
    """

    number: int
    class_name: str
    kind: str
    model: str
    tenant: str
    conversation: int = -1
    turn: int = 0
    intended_s: float = 0.0
    sent_s: float = 0.0
    first_s: float | None = None
    end_s: float = 0.0
    status: int = 0
    error: str = ""
    prompt_tokens: int = -1
    output_tokens: int = -1
    cached_tokens: int = -1
    asked_input: int = 0
    asked_output: int = 0
    gaps_ms: list[float] = field(default_factory=list)
    answered_by: str = ""
    worker: int = 0

    @property
    def is_ok(self) -> bool:
        """A complete answer."""
        return self.status == 200 and not self.error

    @property
    def ttft_s(self) -> float | None:
        """From the actual send to the first text."""
        return None if self.first_s is None else self.first_s - self.sent_s

    @property
    def ttft_intended_s(self) -> float | None:
        """From the intended send to the first text."""
        return None if self.first_s is None else self.first_s - self.intended_s

    @property
    def e2e_s(self) -> float:
        """From the actual send to the end."""
        return self.end_s - self.sent_s

    @property
    def e2e_intended_s(self) -> float:
        """From the intended send to the end."""
        return self.end_s - self.intended_s

    @property
    def tpot_s(self) -> float | None:
        """(last text - first text) / (tokens - 1), tokens from `usage`."""
        if self.first_s is None or self.output_tokens < 2:
            return None
        return sum(self.gaps_ms) / 1000 / (self.output_tokens - 1)

    def as_line(self) -> bytes:
        """One line of records.jsonl."""
        return orjson.dumps(asdict(self), option=orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Record:
        """What `as_line` wrote."""
        return cls(**values)


def read_records(folder: Path) -> Iterator[Record]:
    """The records of a run, in the order of their writing; a torn last line is left out."""
    with (folder / RECORDS).open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield Record.from_dict(orjson.loads(line))


def write_records(folder: Path, records: Iterable[Record]) -> None:
    """Write them anew."""
    with (folder / RECORDS).open("wb") as file:
        file.writelines(record.as_line() for record in records)
