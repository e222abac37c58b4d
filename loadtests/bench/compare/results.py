"""The results of a comparison, and the figures for the bars. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from loadtests.analysis.stats import percentile
from loadtests.bench.compare.cells import Cell
from loadtests.bench.compare.contenders import BASELINE, COMPTOIR, RAY_PATHS
from loadtests.bench.compare.texts import Comparison
from loadtests.bench.summary import medians, ratio

Figures = Mapping[str, float]
CPU_PREFIX = "cpu_s_per_1k_tokens "
# More than this beside us, and the figures say more about the neighbours.
OTHERS_CORES = 0.1


def is_disturbed(figures: Figures) -> bool:
    """Whether other processes were busy during a burst."""
    return figures.get("others_cores", 0.0) > OTHERS_CORES


def with_cpu(figures: Figures, cpu_by_role: Mapping[str, float]) -> dict[str, float]:
    """The figures of one burst and the CPU seconds per 1,000 of its tokens, by role."""
    thousands = figures["tokens"] / 1000
    return dict(figures) | {
        CPU_PREFIX + role: ratio(seconds, thousands) for role, seconds in cpu_by_role.items()
    }


@dataclass(frozen=True)
class Burst:
    """The figures of one burst, and those of the baseline right before it."""

    figures: Figures
    baseline: Figures | None = None


@dataclass
class Results:
    """Every burst of every round."""

    bursts: dict[tuple[str, str, str], list[Burst]] = field(default_factory=dict)
    resident_mib: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    idle_cores: dict[str, list[float]] = field(default_factory=dict)
    started_in_s: dict[str, list[float]] = field(default_factory=dict)
    texts: list[Comparison] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(
        self,
        contender: str,
        cell: Cell,
        client: str,
        figures: Figures,
        baseline: Figures | None = None,
    ) -> None:
        """Add one burst, and the baseline's beside it."""
        self.bursts.setdefault((contender, cell.name, client), []).append(Burst(figures, baseline))
        if baseline is not None:
            self.add(BASELINE, cell, client, baseline)

    def client_of(self, cell: Cell) -> str:
        """The client whose figures are shown for a cell: vLLM's own wherever it has measured."""
        clients = {client for _, name, client in self.bursts if name == cell.name}
        return "vllm" if "vllm" in clients else "own"

    def of(self, contender: str, cell: Cell, client: str | None = None) -> list[Burst]:
        """The bursts of a contender in a cell, of the client whose figures are shown."""
        return self.bursts.get((contender, cell.name, client or self.client_of(cell)), [])

    def medians(self, contender: str, cell: Cell, client: str | None = None) -> dict[str, float]:
        """The medians of a contender in a cell; empty where it was not measured."""
        return medians([burst.figures for burst in self.of(contender, cell, client)])

    def figure(self, contender: str, cell: Cell, name: str, client: str | None = None) -> float:
        """One median; NaN where it was not measured."""
        return self.medians(contender, cell, client).get(name, math.nan)

    def ratios(
        self, contender: str, cell: Cell, name: str, client: str | None = None
    ) -> list[float]:
        """As multiples of the baseline's: burst by burst where they were measured in pairs."""
        pairs = [
            (burst.figures[name], burst.baseline[name])
            for burst in self.of(contender, cell, client)
            if burst.baseline is not None and name in burst.figures and name in burst.baseline
        ]
        if pairs:
            return [ratio(figure, baseline) for figure, baseline in pairs]
        figure = self.figure(contender, cell, name, client)
        baseline = self.figure(BASELINE, cell, name, client)
        return [] if math.isnan(figure + baseline) else [ratio(figure, baseline)]

    def ratio(self, contender: str, cell: Cell, name: str, client: str | None = None) -> float:
        """The median of the ratios; NaN where there are none."""
        return percentile(self.ratios(contender, cell, name, client), 50)

    def added(self, contender: str, cell: Cell, name: str) -> float:
        """The excess over the baseline: the median of the pairs, or the difference of the medians."""
        pairs = [burst for burst in self.of(contender, cell) if burst.baseline is not None]
        if not pairs:
            return self.figure(contender, cell, name) - self.figure(BASELINE, cell, name)
        more = [
            burst.figures[name] - burst.baseline[name]
            for burst in pairs
            if burst.baseline is not None
        ]
        return percentile(more, 50)

    def disturbed(self) -> int:
        """The number of bursts that other processes disturbed."""
        return sum(is_disturbed(one.figures) for bursts in self.bursts.values() for one in bursts)

    def as_json(self) -> dict[str, Any]:
        """All results, for a file."""
        bursts: dict[str, Any] = {}
        for (contender, cell, client), found in self.bursts.items():
            place = bursts.setdefault(contender, {}).setdefault(cell, {})
            middle = medians([burst.figures for burst in found])
            place[client] = {"median": middle, "bursts": [asdict(burst) for burst in found]}
        return {
            "bursts": bursts,
            "resident_mib": self.resident_mib,
            "idle_cores": self.idle_cores,
            "started_in_s": self.started_in_s,
            "texts": [asdict(each) for each in self.texts],
            "failures": self.failures,
        }


def bar_figures(results: Results) -> dict[str, float]:
    """The figures that COMPARE_BARS name; NaN where something was not measured."""
    many, alone = Cell(64, 64), Cell(1, 64)
    figures = {
        "requests_ratio_64x64": results.ratio(COMPTOIR, many, "requests_per_s"),
        "ttft_ratio_64x64": results.ratio(COMPTOIR, many, "ttft_p50_ms"),
        "added_ttft_ms_1x64": results.added(COMPTOIR, alone, "ttft_p50_ms"),
        "itl_ratio_1x64": results.ratio(COMPTOIR, alone, "itl_p50_ms"),
        "requests_ratio_64x64_whole": results.ratio(
            COMPTOIR, Cell(64, 64, False), "requests_per_s"
        ),
        "requests_ratio_64x1": results.ratio(COMPTOIR, Cell(64, 1), "requests_per_s"),
        "requests_ratio_64x1_whole": results.ratio(COMPTOIR, Cell(64, 1, False), "requests_per_s"),
        "errors": _errors(results, COMPTOIR),
    }
    for streams in (16, 64, 256):
        figures[f"ray_lead_{streams}x64"] = _lead(results, Cell(streams, 64), RAY_PATHS)
    if results.texts:
        figures["different_texts"] = float(sum(each.different for each in results.texts))
    return figures


def _lead(results: Results, cell: Cell, others: Iterable[str]) -> float:
    """Comptoir's ratio as a multiple of the best of the others', if all were measured."""
    ratios = [results.ratio(other, cell, "requests_per_s") for other in others]
    if any(map(math.isnan, ratios)):
        return math.nan
    return ratio(results.ratio(COMPTOIR, cell, "requests_per_s"), max(ratios))


def _errors(results: Results, contender: str) -> float:
    found = [
        burst.figures["errors"]
        for (name, _, _), bursts in results.bursts.items()
        if name == contender
        for burst in bursts
    ]
    return sum(found) if found else math.nan
