"""Records as arrays, from which summary, report and comparison are computed."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.analysis.stats import Floats, percentile
from loadtests.run.record import Record
from loadtests.workload.scenario import SloConfig

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
# Class, model and tenant: what figures are grouped by.
Group = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Columns:
    """Records as arrays, one place for each request; of gaps, `gap_counts[i]` belong to request i.

    Attributes:
        first_s: NaN where no text came.
        group: place in `groups`.
        error: place in `words`; the word of place 0 is "", a complete answer.
    """

    groups: tuple[Group, ...]
    words: tuple[str, ...]
    number: Ints
    conversation: Ints
    turn: Ints
    status: Ints
    group: Ints
    error: Ints
    prompt_tokens: Ints
    output_tokens: Ints
    cached_tokens: Ints
    asked_output: Ints
    gap_counts: Ints
    intended_s: Floats
    sent_s: Floats
    first_s: Floats
    end_s: Floats
    gaps_ms: Floats

    @classmethod
    def of(cls, records: Iterable[Record]) -> Columns:
        """Reads them once; the records themselves are not kept."""
        groups: dict[Group, int] = {}
        words: dict[str, int] = {"": 0}
        whole, times, gaps = array("q"), array("d"), array("d")
        for one in records:
            group = groups.setdefault((one.class_name, one.model, one.tenant), len(groups))
            word = "" if one.is_ok else one.error or "unknown"
            error = words.setdefault(word, len(words))
            gaps.extend(one.gaps_ms)
            whole.extend((one.number, one.conversation, one.turn, one.status, group, error))
            whole.extend((one.prompt_tokens, one.output_tokens, one.cached_tokens))
            whole.extend((one.asked_output, len(one.gaps_ms)))
            first_s = math.nan if one.first_s is None else one.first_s
            times.extend((one.intended_s, one.sent_s, first_s, one.end_s))
        # In the order of the fields.
        columns: list[Any] = [tuple(groups), tuple(words)]
        columns += list(np.array(whole, dtype=np.int64).reshape(-1, 11).T)
        columns += list(np.array(times, dtype=np.float64).reshape(-1, 4).T)
        columns.append(np.array(gaps, dtype=np.float64))
        return cls(*columns)

    def __len__(self) -> int:
        return self.number.size

    def where(self, mask: Mask) -> Columns:
        """Those of the requests."""
        changes = {
            one.name: getattr(self, one.name)[mask]
            for one in fields(self)
            if one.name not in ("groups", "words", "gaps_ms")
        }
        return replace(self, **changes, gaps_ms=self.gaps_ms[np.repeat(mask, self.gap_counts)])

    @property
    def ok(self) -> Mask:
        """A complete answer."""
        found: Mask = self.error == 0
        return found

    def latencies(self) -> dict[str, Floats]:
        """Milliseconds by name, NaN where there is none; `itl_ms` has a value for each gap, not request."""
        with np.errstate(divide="ignore", invalid="ignore"):
            tpot = np.where(
                (self.output_tokens >= 2) & ~np.isnan(self.first_s),
                self._gap_sums() / (self.output_tokens - 1),
                np.nan,
            )
        return {
            "ttft_ms": (self.first_s - self.sent_s) * 1000,
            "ttft_intended_ms": (self.first_s - self.intended_s) * 1000,
            "itl_ms": self.gaps_ms,
            "tpot_ms": tpot,
            "e2e_ms": (self.end_s - self.sent_s) * 1000,
            "e2e_intended_ms": (self.end_s - self.intended_s) * 1000,
        }

    def _gap_sums(self) -> Floats:
        passed = np.concatenate(([0.0], np.cumsum(self.gaps_ms)))
        ends = np.cumsum(self.gap_counts)
        sums: Floats = passed[ends] - passed[ends - self.gap_counts]
        return sums

    def good(self, slos: Mapping[Group, SloConfig]) -> Mask:
        """The requests that met every limit of their class, from the intended send; a failure never does."""
        found = self.ok.copy()
        latencies = self.latencies()
        for place, group in enumerate(self.groups):
            mine, slo = self.group == place, slos.get(group, SloConfig())
            # Without a first token that promise is broken; without a second one there is none to break.
            for name, limit, is_needed in (
                ("ttft_intended_ms", slo.ttft_ms, True),
                ("tpot_ms", slo.tpot_ms, False),
                ("e2e_intended_ms", slo.e2e_ms, True),
            ):
                if limit is not None:
                    values = latencies[name]
                    kept = values <= limit
                    found &= ~mine | (kept if is_needed else kept | np.isnan(values))
            if slo.itl_ms is not None:
                found &= ~mine | self._gaps_within(slo.itl_ms, found & mine)
        return found

    def _gaps_within(self, limit_ms: float, asked: Mask) -> Mask:
        """Whether a request's p99 of gaps is within a limit; only those with a gap over it are looked at."""
        ends = np.cumsum(self.gap_counts)
        over = np.concatenate(([0], np.cumsum(self.gaps_ms > limit_ms)))
        doubtful = over[ends] - over[ends - self.gap_counts] > 0
        kept: Mask = ~doubtful
        for place in np.flatnonzero(doubtful & asked):
            mine = self.gaps_ms[ends[place] - self.gap_counts[place] : ends[place]]
            kept[place] = percentile(mine.tolist(), 99) <= limit_ms
        return kept
