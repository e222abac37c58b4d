"""Objectives: how fast a model uses up its error budget, over several windows at once.

The windows and factors are those of "The Site Reliability Workbook" (Beyer et al., 2018), chapter 5,
"Alerting on SLOs": an alert needs a long window, so that it is about something that matters, and a short one,
so that it ends soon after the cause. At 14.4 times the budget's speed, an hour costs 2 % of 30 days' budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serving.monitoring.alert import Alert, Record, Severity
from serving.monitoring.promql import rate
from serving.monitoring.settings import MonitoringConfig, duration

MINUTE, HOUR, DAY = 60, 3600, 86_400
WINDOWS_S = (5 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 6 * HOUR, DAY, 3 * DAY)
# What went as it should, and what the site owed and did not give.
BAD = 'outcome=~"broken|failed"'
COUNTED = 'outcome=~"ok|broken|failed"'


@dataclass(frozen=True, slots=True)
class Burn:
    """Two windows, and the factor by which both must use up the budget too fast."""

    long_s: int
    short_s: int
    factor: float


FAST = (Burn(HOUR, 5 * MINUTE, 14.4), Burn(6 * HOUR, 30 * MINUTE, 6))
SLOW = (Burn(DAY, 2 * HOUR, 3), Burn(3 * DAY, 6 * HOUR, 1))


def requests(window_s: float) -> str:
    """Name of a recorded rate: requests per second that count for the objective."""
    return f"model:comptoir_requests:rate{duration(window_s)}"


def errors(window_s: float) -> str:
    """Name of a recorded share: requests that were not answered to their end."""
    return f"model:comptoir_errors:ratio_rate{duration(window_s)}"


def slow_starts(window_s: float) -> str:
    """Name of a recorded share: streams whose first bytes came too late."""
    return f"model:comptoir_slow_starts:ratio_rate{duration(window_s)}"


def records(config: MonitoringConfig) -> list[Record]:
    """Rates and shares over every window. Names keep the windows of pace 1."""
    found = []
    # As prometheus-client writes it: 1.0, not 1.
    bound = f'le="{float(config.ttft_s)}"'
    for window_s in WINDOWS_S:
        window = config.duration(window_s)
        bad = rate(f"comptoir_outcomes_total{{{BAD}}}", window)
        in_time = rate(f"comptoir_ttft_seconds_bucket{{{bound}}}", window)
        streams = rate("comptoir_ttft_seconds_count", window)
        found += [
            Record(requests(window_s), rate(f"comptoir_outcomes_total{{{COUNTED}}}", window)),
            Record(errors(window_s), f"{bad} / {requests(window_s)}"),
            Record(slow_starts(window_s), f"1 - {in_time} / {streams}"),
        ]
    return found


def alerts(config: MonitoringConfig) -> list[Alert]:
    """Fast and slow burn of both budgets."""
    speeds: tuple[tuple[str, str, Sequence[Burn], Severity], ...] = (
        ("Fast", "so fast that it lasts only days", FAST, "page"),
        ("Slow", "faster than it lasts", SLOW, "ticket"),
    )
    found = []
    for name, speed, burns, severity in speeds:
        found += [
            Alert(
                f"ComptoirAvailabilityBurn{name}",
                _burning(config, errors, 1 - config.availability, burns),
                severity,
                f"{{{{ $labels.model }}}} uses up its error budget {speed}",
                "{{ $value | humanizePercentage }} of its requests failed or broke off; the objective "
                f"allows {_percent(1 - config.availability)}.",
            ),
            Alert(
                f"ComptoirTtftBurn{name}",
                _burning(config, slow_starts, 1 - config.ttft_share, burns),
                severity,
                f"{{{{ $labels.model }}}} answers late and uses up its budget {speed}",
                "{{ $value | humanizePercentage }} of its streams began after more than "
                f"{config.ttft_s:g} s; the objective allows {_percent(1 - config.ttft_share)}.",
            ),
        ]
    return found


def _burning(
    config: MonitoringConfig,
    share: Callable[[float], str],
    budget: float,
    burns: Sequence[Burn],
) -> str:
    parts = []
    for burn in burns:
        # A share cannot exceed 1: with a loose objective the fastest burn would never be seen.
        limit = f"{min(burn.factor * budget, 0.99):.6g}"
        seen = f"{requests(burn.long_s)} * {burn.long_s * config.pace:.6g}"
        parts.append(
            f"(\n  {share(burn.long_s)} > {limit}\n"
            f"  and {share(burn.short_s)} > {limit}\n"
            f"  and {seen} >= {config.min_requests}\n)"
        )
    return "\nor\n".join(parts)


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"
