"""Euros, kilowatt-hours and grams of CO2, per month and per million tokens. Pure.

    EUR/Mtok = EUR per month / million tokens per month
    kWh      = GPUs x (board x (idle + (busy - idle) x load) + overhead) x PUE x hours / 1000
    gCO2e    = kWh x grid intensity

A month's tokens are those of its mean load, not of its peak. GPUs draw power without requests too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loadtests.plan.demand import Pick, at
from loadtests.plan.model import CPU, PlanConfig, Span, price_table, span
from serving.catalogue.gpus import GPUS
from serving.errors import ConfigError

PRICE, PUE, MEAN, IDLE, BUSY, OVERHEAD, BOARD, GRID = (
    "eur_per_gpu_hour",
    "pue",
    "mean_share",
    "idle_share",
    "busy_share",
    "overhead_w",
    "board_w",
    "grid_gco2e_per_kwh",
)


@dataclass(frozen=True, slots=True)
class Fleet:
    """All GPUs of one kind: those that are paid for, and how busy their replicas are on average."""

    gpu: str
    gpus: int
    load: float


@dataclass(frozen=True, slots=True)
class PerToken:
    """Of a million: tokens of both kinds alike, input tokens, output tokens."""

    mean: float
    input: float
    output: float


@dataclass(frozen=True, slots=True)
class Bill:
    """A month. None: nobody said the watts (replicas without GPUs), or the country."""

    input_mtok: float
    output_mtok: float
    eur: float
    kwh: float | None
    kg_co2e: float | None
    eur_per_mtok: PerToken
    kwh_per_mtok: PerToken | None
    gco2e_per_mtok: PerToken | None


def price_of(plan: PlanConfig, gpu: str) -> Span:
    """EUR per hour: the plan's own, or the table's range.

    Raises:
        ConfigError: neither knows it.
    """
    own = plan.site.eur_per_gpu_hour.get(gpu)
    if own is not None:
        return own
    listed = price_table()["gpus"].get(gpu)
    if listed is None:
        raise ConfigError(
            f"site.eur_per_gpu_hour: is required for {gpu!r}: what an hour of "
            f"{'a replica' if gpu == CPU else 'a GPU'} costs, {{{gpu}: 0.20}}",
            param="site.eur_per_gpu_hour",
        )
    return span(listed["low"], listed["typical"], listed["high"])


def board_of(plan: PlanConfig, gpu: str) -> Span | None:
    """Highest power of a GPU in watts; None where unknown."""
    own = plan.site.board_w.get(gpu)
    if own is not None:
        return own
    watts = GPUS[gpu].power_w if gpu in GPUS else None
    return None if watts is None else span(watts, watts, watts)


def bill(
    plan: PlanConfig, fleets: list[Fleet], rates_per_s: Mapping[str, float], pick: Pick
) -> Bill:
    """The cost of a month.

    Args:
        rates_per_s: requests per second at the peak, by class.
    """
    site = plan.site
    input_mtok, output_mtok = _mtok(plan, rates_per_s, pick)
    eur = sum(
        one.gpus * at(price_of(plan, one.gpu), pick, PRICE) * site.hours_per_month for one in fleets
    )
    kwh = _kwh(plan, fleets, pick)
    grid = site.intensity
    grams = None if kwh is None or grid is None else kwh * at(grid, pick, GRID)

    def split(amount: float) -> PerToken:
        weighted = amount / (input_mtok + plan.output_weight * output_mtok)
        mean = amount / (input_mtok + output_mtok)
        return PerToken(mean, weighted, weighted * plan.output_weight)

    return Bill(
        input_mtok=input_mtok,
        output_mtok=output_mtok,
        eur=eur,
        kwh=kwh,
        kg_co2e=None if grams is None else grams / 1000,
        eur_per_mtok=split(eur),
        kwh_per_mtok=None if kwh is None else split(kwh),
        gco2e_per_mtok=None if grams is None else split(grams),
    )


def _mtok(plan: PlanConfig, rates_per_s: Mapping[str, float], pick: Pick) -> tuple[float, float]:
    """Millions of input and of output tokens."""
    seconds = 3600 * plan.site.hours_per_month * at(plan.mean_share, pick, MEAN)
    millions = {name: rate * seconds / 1e6 for name, rate in rates_per_s.items()}
    return (
        sum(millions[kind.name] * kind.input_tokens for kind in plan.traffic),
        sum(millions[kind.name] * kind.output_tokens for kind in plan.traffic),
    )


def _kwh(plan: PlanConfig, fleets: list[Fleet], pick: Pick) -> float | None:
    site, watts = plan.site, 0.0
    idle, busy = at(site.idle_share, pick, IDLE), at(site.busy_share, pick, BUSY)
    for one in fleets:
        board = board_of(plan, one.gpu)
        if board is None:
            return None
        drawn = idle + max(0.0, busy - idle) * min(1.0, one.load)
        watts += one.gpus * (at(board, pick, BOARD) * drawn + at(site.overhead_w, pick, OVERHEAD))
    return watts * at(site.pue, pick, PUE) * site.hours_per_month / 1000
