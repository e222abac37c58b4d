"""The record of a replica's bill, and the interface of its ledger. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from serving.records import record
from serving.replica_protocol import Bill


@record
class BilledTo:
    """A bill, and the name of the key that it is for."""

    bill: Bill
    tenant: str

    def as_dict(self) -> dict[str, Any]:
        """As a line of the journal: names, numbers and fixed words; nothing of what was asked or answered."""
        bill, usage = self.bill, self.bill.usage
        return {
            "bill": bill.id,
            "ended_s": bill.ended_s,
            "request_id": bill.request_id,
            "tenant": self.tenant,
            "key": bill.key,
            "model": bill.model,
            "adapter": bill.adapter,
            "path": bill.path,
            "is_prefill": bill.is_prefill,
            "outcome": bill.outcome,
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "output_tokens": usage.output_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "distinct_prompt_tokens": usage.distinct_prompt_tokens,
            "sequences": usage.sequences,
        }


class BillSink(Protocol):
    """Keeps bills. A bill may be recorded twice, after a crash in between: its id is the same."""

    async def record(self, bills: Sequence[BilledTo]) -> None:
        """Keep these bills for good; only then does the replica forget them.

        Raises:
            OSError: it failed; the same bills will be given again.
        """

    async def close(self) -> None:
        """Close: no more bills come."""


class NoSink:
    """A sink that keeps no bills."""

    async def record(self, bills: Sequence[BilledTo]) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Nothing was opened."""
