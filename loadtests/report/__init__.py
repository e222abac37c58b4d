"""report.html and pictures of a run or of a sweep: one file that opens without a network.

Everything heavy is imported when a report is made: the load generator imports this package too.
"""

from __future__ import annotations

from pathlib import Path


def build(folder: Path) -> Path:
    """Write report.html, latency.png and timeline.png into a run's folder; returns the page.

    Raises:
        ConfigError: the folder holds no run.
    """
    from loadtests.report.run_page import build_run

    return build_run(folder)


def build_sweep(folder: Path) -> Path:
    """Write report.html and sweep.png into a sweep's folder; returns the page.

    Raises:
        ConfigError: there is no sweep in it.
    """
    from loadtests.report.sweep_page import build_sweep as build_it

    return build_it(folder)


__all__ = ["build", "build_sweep"]
