"""The plan of a comparison: contenders, rounds, clients. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.bench.compare.cells import Cell
from loadtests.bench.compare.contenders import BASELINE

# Baseline and contender take turns so often in each cell of a round, if they do.
TURNS = 2
BURST_S = 5.0
BURST_OF_PAIR_S = 3.0


@dataclass(frozen=True)
class ComparePlan:
    """One comparison.

    Attributes:
        paired: each contender is measured beside the baseline, in turns of seconds, the other frozen.
            Otherwise one after the other, the baseline like everybody.
    """

    contenders: Sequence[str]
    cells: Sequence[Cell]
    clients: Sequence[str]
    rounds: int
    paired: bool = False
    seconds: float | None = None
    picture: Path | None = None

    @property
    def burst_s(self) -> float:
        """Length of one burst, about."""
        return self.seconds or (BURST_OF_PAIR_S if self.paired else BURST_S)

    @property
    def turns(self) -> int:
        """Bursts of one contender in one cell of a round with one client."""
        return TURNS if self.paired else 1

    @property
    def bursts(self) -> int:
        """Measurements of one contender in one round."""
        return self.turns * sum(len(self.clients) if cell.stream else 1 for cell in self.cells)

    @property
    def bursts_in_all(self) -> int:
        """Bursts of one contender in one cell with one client."""
        return self.turns * self.rounds

    @property
    def baseline(self) -> str | None:
        """The server beside which all others are measured."""
        return BASELINE if self.paired and BASELINE in self.contenders else None

    @property
    def challengers(self) -> list[str]:
        """The servers with turns of their own."""
        return [name for name in self.contenders if name != self.baseline]

    @property
    def steps(self) -> int:
        """Steps of the whole comparison: each start and each burst."""
        starts = len(self.contenders)
        return self.rounds * (starts + len(self.challengers) * self.bursts)
