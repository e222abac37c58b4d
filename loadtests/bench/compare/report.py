"""The tables of a comparison. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table

from loadtests.analysis.stats import percentile
from loadtests.bench.compare.cells import Cell
from loadtests.bench.compare.contenders import BASELINE, CONTENDERS
from loadtests.bench.compare.results import CPU_PREFIX, Results
from loadtests.bench.compare.roles import ROLES
from loadtests.bench.summary import medians
from loadtests.bench.tables import number, table

# Head, figure, and whether its multiple of the baseline's stands beside it.
Columns = tuple[tuple[str, str, bool], ...]
# The figure whose ratios are shown with their range.
SPREAD_OF = "requests_per_s"
CLIENT_TITLES = {"vllm": "vllm bench serve", "own": "our own client"}
STREAMED: Columns = (
    ("req/s", "requests_per_s", True),
    ("tok/s", "tokens_per_s", False),
    ("TTFT p50", "ttft_p50_ms", True),
    ("p99", "ttft_p99_ms", True),
    ("ITL p50", "itl_p50_ms", True),
    ("p99", "itl_p99_ms", True),
    ("TPOT p50", "tpot_p50_ms", True),
    ("errors", "errors", False),
)
WHOLE: Columns = (
    ("req/s", "requests_per_s", True),
    ("tok/s", "tokens_per_s", False),
    ("latency p50", "latency_p50_ms", True),
    ("p99", "latency_p99_ms", True),
    ("errors", "errors", False),
)


def title_of(cell: Cell) -> str:
    """A cell in words."""
    tokens = "1 token" if cell.tokens == 1 else f"{cell.tokens} tokens"
    streams = "stream" if cell.streams == 1 else "streams"
    if cell.stream:
        return f"{cell.streams} {streams} × {tokens}"
    return f"{cell.streams} parallel × {tokens}, not streamed"


def tables(results: Results, cells: Sequence[Cell], contenders: Sequence[str]) -> list[Table]:
    """Everything but the bars."""
    parts: list[Table | None] = [_cell(results, cell, contenders) for cell in cells]
    parts.append(_cross_check(results, cells, contenders))
    parts += [_cpu(results, cell, contenders) for cell in _for_cpu(cells)]
    parts.append(_memory(results, contenders))
    return [part for part in parts if part is not None and part.rows]


def _for_cpu(cells: Sequence[Cell]) -> list[Cell]:
    """One cell streamed and one not: the others are in the JSON."""
    wanted = (Cell(64, 64), Cell(64, 64, False))
    return [cell for cell in wanted if cell in cells] or list(cells[:1])


def _cell(results: Results, cell: Cell, contenders: Sequence[str]) -> Table:
    client = results.client_of(cell)
    columns = STREAMED if cell.stream else WHOLE
    if cell.tokens == 1:
        columns = tuple(column for column in columns if column[1][:4] not in ("itl_", "tpot"))
    head = [f"{title_of(cell)} ({CLIENT_TITLES[client]}; ms)"]
    for text, name, has_ratio in columns:
        head += [text, "×"] if has_ratio else [text]
        head += ["× from to"] if name == SPREAD_OF else []
    rows = []
    for contender in contenders:
        if not results.medians(contender, cell):
            continue
        row = [CONTENDERS[contender].title]
        for _, name, has_ratio in columns:
            row.append(number(results.figure(contender, cell, name)))
            if has_ratio:
                row.append(_times(results.ratio(contender, cell, name)))
            if name == SPREAD_OF:
                row.append(_spread(results.ratios(contender, cell, name)))
        rows.append(row)
    return table(head, rows)


def _cross_check(
    results: Results, cells: Sequence[Cell], contenders: Sequence[str]
) -> Table | None:
    """The same ratios by both clients, where both have measured."""
    clients = {client for _, _, client in results.bursts}
    shared = [cell for cell in cells if cell.stream]
    if len(clients) < 2 or not shared or BASELINE not in contenders:
        return None
    head = ["requests/s, multiple of vLLM's, by client", "client"]
    rows = [
        [CONTENDERS[contender].title, CLIENT_TITLES[client]]
        + [_times(results.ratio(contender, cell, "requests_per_s", client)) for cell in shared]
        for contender in contenders
        if contender != BASELINE
        for client in ("vllm", "own")
    ]
    return table([*head, *(cell.name for cell in shared)], rows, left=2)


def _cpu(results: Results, cell: Cell, contenders: Sequence[str]) -> Table:
    rows = []
    for contender in contenders:
        found = results.medians(contender, cell)
        if found:
            by_role = [found.get(CPU_PREFIX + role, 0.0) for role in ROLES]
            # The client is not the server's.
            total = sum(by_role) - by_role[ROLES.index("client")]
            rows.append([CONTENDERS[contender].title, *map(_seconds, by_role), _seconds(total)])
    head = [f"CPU seconds per 1,000 tokens, {title_of(cell)}", *ROLES, "server"]
    return table(head, rows)


def _memory(results: Results, contenders: Sequence[str]) -> Table:
    rows = []
    for contender in contenders:
        if contender not in results.resident_mib:
            continue
        found = medians(results.resident_mib[contender])
        by_role = [found.get(role, 0.0) for role in ROLES[1:]]
        started = percentile(results.started_in_s[contender], 50)
        idle = percentile(results.idle_cores[contender], 50)
        cells = [number(value) if value else "–" for value in (*by_role, sum(by_role))]
        rows.append([CONTENDERS[contender].title, *cells, _times(idle), number(started, "s")])
    head = ["resident memory, MiB", *ROLES[1:], "all", "idle cores", "started in"]
    return table(head, rows)


def _times(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _spread(ratios: Sequence[float]) -> str:
    return f"{min(ratios):.2f}–{max(ratios):.2f}" if len(ratios) > 1 else "–"


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value else "–"
