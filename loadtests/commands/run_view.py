"""A run's view on a terminal: its progress, and its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from loadtests.answers.ends import broken_in_words, counts_in_words, remarks
from loadtests.workload.scenario import Scenario
from serving.commands.output import errors, say, show


def arrivals_in_words(scenario: Scenario) -> str:
    """The arrivals in words."""
    arrivals = scenario.arrivals
    match arrivals.kind:
        case "closed":
            return f"{arrivals.users} users"
        case "ramp":
            return f"{arrivals.rate_per_s:g} to {arrivals.to_per_s:g} requests/s"
        case "steps":
            return f"{', '.join(f'{rate:g}' for rate in arrivals.rates_per_s)} requests/s"
        case "trace":
            return f"the trace {Path(arrivals.trace or '').name}"
    return f"{arrivals.rate_per_s:g} requests/s ({arrivals.kind})"


class ProgressBar:
    """One line with the progress of the run; nothing without a terminal."""

    def __init__(self, duration_s: float) -> None:
        self._duration_s = duration_s
        self._progress = Progress(
            BarColumn(30), TimeElapsedColumn(), TextColumn("{task.description}"), console=errors
        )
        self._task = self._progress.add_task("starting", total=duration_s)

    def __enter__(self) -> Any:
        self._progress.start()
        return self._update

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def _update(self, counts: dict[str, Any]) -> None:
        failed = counts["done"] - counts["ok"]
        text = f"sent {counts['sent']}, in flight {counts['in_flight']}, failed {failed}"
        at_s = min(max(0.0, counts["t_s"]), self._duration_s)
        self._progress.update(self._task, completed=at_s, description=text)


def show_summary(summary: dict[str, Any]) -> None:
    """A table of the classes, and the verdict."""
    table = Table("class", "model", "tenant", "requests", "ok", "TTFT p50 / p95", box=None)
    for name in ("ITL p50 / p99", "E2E p50 / p95", "SLO"):
        table.add_column(name)
    for one in summary["groups"]:
        latency = one["latency"]
        table.add_row(
            escape(one["class"]),
            escape(one["model"]),
            escape(one["tenant"]),
            str(one["requests"]),
            str(one["ok"]),
            _pair(latency.get("ttft_intended_ms"), "p50", "p95"),
            _pair(latency.get("itl_ms"), "p50", "p99"),
            _pair(latency.get("e2e_intended_ms"), "p50", "p95"),
            f"{100 * one['attainment']:.1f} % {slo_in_words(one)}",
        )
    show(table)
    say(
        f"{summary['ok']} of {summary['requests']} requests answered, "
        f"{summary['rate_per_s']:.2f}/s, {summary['output_tokens_per_s']:.0f} tokens/s; "
        f"latency from the intended send"
    )
    if summary["errors"]:
        say(f"failed: {failures_in_words(summary)}")
    for remark in remarks(summary):
        say(remark)
    if summary.get("broken"):
        errors.print("BROKEN ANSWERS:", style="bold red", end=" ")
        errors.print(broken_in_words(summary), markup=False, soft_wrap=True)
    if not summary["valid"]:
        errors.print("INVALID:", style="bold red", end=" ")
        errors.print("; ".join(summary["invalid_because"]), markup=False, soft_wrap=True)


def failures_in_words(summary: dict[str, Any]) -> str:
    """The counts of failures in words, the most frequent first."""
    counts = counts_in_words(summary["errors"])
    statuses = [f"{count} x {status}" for status, count in summary["statuses"].items()]
    return counts + (f" ({', '.join(statuses)})" if statuses else "")


def no_answer_in_words(url: str, summary: dict[str, Any]) -> str:
    """The message when no request was answered: most likely the command is wrong, not the server."""
    return (
        f"{url} answered none of the requests: {failures_in_words(summary)}; "
        "`comptoir status --url` says what runs there; --model, --key and --key-env say what to ask for"
    )


def _pair(figures: dict[str, float] | None, first: str, second: str) -> str:
    if not figures:
        return "-"
    return f"{figures[first]:.0f} / {figures[second]:.0f} ms"


def holds(group: dict[str, Any]) -> bool:
    """Whether a class met its SLO; one with broken answers meets none, however many others were good."""
    return bool(group["attainment"] >= group["slo"]["target"]) and not group.get("broken")


def slo_in_words(group: dict[str, Any]) -> str:
    """The verdict on a class."""
    if group.get("broken"):
        return "BROKEN"
    return "holds" if holds(group) else "MISSED"
