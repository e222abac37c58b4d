"""A plan for people (tables) and for scripts (JSON). Pure: nothing is printed here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from loadtests.plan.capacity import ClassCapacity
from loadtests.plan.measured import long_enough_s
from loadtests.plan.model import PlanConfig, TrafficConfig, grid_table, price_table
from loadtests.plan.planner import ModelPlan, Outcome
from loadtests.plan.uncertainty import Bounds, Effect, Unsettled, dominant

# Figures in the order of the table: label, form, and whether they are of a month.
FIGURES = {
    "replicas": ("replicas, with spares", ".0f"),
    "gpus": ("GPUs", ".0f"),
    "nodes": ("nodes", ".0f"),
    "eur_per_month": ("EUR per month", ",.0f"),
    "eur_per_mtok": ("EUR per million tokens", ",.3g"),
    "eur_per_mtok_input": ("  of input", ",.3g"),
    "eur_per_mtok_output": ("  of output", ",.3g"),
    "kwh_per_month": ("kWh per month", ",.0f"),
    "kwh_per_mtok": ("kWh per million tokens", ",.3g"),
    "kg_co2e_per_month": ("kg CO2e per month", ",.0f"),
    "gco2e_per_mtok": ("g CO2e per million tokens", ",.3g"),
}
EXPLAINED = {
    "capacity": "what replicas carry (sweeps, scaling)",
    "e2e_s": "how long requests take",
    "mean_share": "mean load over the peak",
}


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is shown."""

    plan: PlanConfig
    capacities: Mapping[str, ClassCapacity]
    now: Outcome
    bounds: Mapping[str, Bounds]
    effects: Sequence[Effect]
    unsettled: Sequence[Unsettled]
    args: Sequence[dict[str, Any]]

    @property
    def basis(self) -> str:
        """`estimate` as soon as one class was not measured."""
        estimates = [one.basis == "estimate" for one in self.capacities.values()]
        return "estimate" if any(estimates) else "measured"


def as_document(report: Report) -> dict[str, Any]:
    """The plan as JSON."""
    return {
        "comptoir_plan": 1,
        "name": report.plan.name,
        "basis": report.basis,
        "figures": {name: asdict(one) for name, one in report.bounds.items()},
        "models": [_model_document(one) for one in report.now.models],
        "classes": [_class_document(report, kind) for kind in report.plan.traffic],
        "dominant": {name: dominant(report.effects, name) for name in report.bounds},
        "sensitivity": [asdict(one) for one in report.effects],
        "unsettled": [asdict(one) for one in report.unsettled],
        "assumptions": notes(report),
        "config": list(report.args),
    }


def _model_document(one: ModelPlan) -> dict[str, Any]:
    return {
        "model": one.model,
        "gpu": one.hardware.gpu,
        "gpus_per_replica": one.hardware.gpus_per_replica,
        "peak_per_s": one.peak_per_s,
        "replicas_needed": one.replicas.needed,
        "replicas": one.replicas.total,
        "most_on_a_node": one.replicas.most_on_a_node,
        "gpus": one.gpus,
        "load_at_peak": one.load,
    }


def _class_document(report: Report, kind: TrafficConfig) -> dict[str, Any]:
    capacity = report.capacities[kind.name]
    return {
        "class": kind.name,
        "model": kind.model,
        "basis": capacity.basis,
        "peak_per_s": report.now.rates_per_s[kind.name],
        "e2e_s": dict(capacity.e2e_s),
        "slo": capacity.slo.model_dump(exclude_none=True),
        "sweeps": list(capacity.sources),
        "measured_replicas": list(capacity.measured_replicas),
    }


def as_tables(report: Report) -> RenderableType:
    """The plan for a terminal."""
    parts: list[RenderableType] = [_models(report), "", _figures(report), "", _effects(report), ""]
    parts += [Text(line, style="dim") for line in notes(report)]
    for one in report.unsettled:
        said = "measurements allow" if one.is_measured else "the ESTIMATE allows"
        parts += [
            "",
            Text(
                f"{one.model}: {said} {one.fewest} to {one.most} replicas, without spares. To settle it, "
                f"measure {one.replicas} of them: {one.sweep}"
            ),
        ]
    return Group(*parts)


def notes(report: Report) -> list[str]:
    """What the figures rest on, one sentence each."""
    plan = report.plan
    filled = (
        f"Filled to {plan.utilisation:.0%} at the peak; stays so after losing {plan.spares} "
        f"{plan.failure_domain}{'' if plan.spares == 1 else 's'}. An output token counts as "
        f"{plan.output_weight:g} input tokens."
    )
    return [*_sources(report), filled, *_doubts(report)]


def _sources(report: Report) -> Iterator[str]:
    """Where figures come from that nobody measured or set: capacity, prices, the grid."""
    site = report.plan.site
    if report.basis == "estimate":
        names = [name for name, one in report.capacities.items() if one.basis == "estimate"]
        yield (
            f"ESTIMATE: {', '.join(names)} from the catalogue's figures and assumed efficiencies, not "
            "measured; measure before buying."
        )
    kinds = {one.hardware.gpu for one in report.now.models}
    table = price_table()
    listed = sorted(kinds & set(table["gpus"]) - set(site.eur_per_gpu_hour))
    if listed:
        yield (
            f"Prices of {', '.join(listed)}: {table['basis']}, list prices of {table['seen']}; set "
            "site.eur_per_gpu_hour."
        )
    if site.country is not None:
        grid = grid_table()
        yield (
            f"Grid: {grid['source']}, {grid['year']}, {grid['method']}; {site.country} "
            f"{grid['gco2e_per_kwh'][site.country]:g} g/kWh."
        )
    elif site.intensity is None:
        yield "CO2e is left out: set site.country or site.grid_gco2e_per_kwh."


def _doubts(report: Report) -> Iterator[str]:
    """What the sweeps do not show."""
    for source, seconds in _short(report).items():
        yield (
            f"{source}: its runs were short, so its rate may be too high; it counts only where no other "
            f"sweep does: sweep with --duration {math.ceil(seconds)} or more."
        )
    if any(len(one.measured_replicas) == 1 for one in report.capacities.values()):
        yield "Measured with one number of replicas only: how much several carry together is assumed."


def _short(report: Report) -> dict[str, float]:
    """Sweeps whose runs were too short, and the seconds that would do."""
    return {
        source: long_enough_s(one.e2e_s["high"])
        for one in report.capacities.values()
        for source in one.short_sweeps
    }


def _title(report: Report) -> str:
    mark = "ESTIMATE, not measured" if report.basis == "estimate" else "measured"
    return f"{report.plan.name}: {mark}"


def _models(report: Report) -> Table:
    table = Table(
        "model", "on", "peak, requests/s", "needed", "with spares", "full at the peak", box=None
    )
    table.title, table.title_justify = escape(_title(report)), "left"
    for one in report.now.models:
        basis = {
            report.capacities[kind.name].basis
            for kind in report.plan.traffic
            if kind.model == one.model
        }
        table.add_row(
            escape(one.model) + (" (ESTIMATE)" if "estimate" in basis else ""),
            escape(str(one.hardware)),
            f"{one.peak_per_s:.3g}",
            str(one.replicas.needed),
            str(one.replicas.total),
            f"{one.load:.0%}",
        )
    return table


def _figures(report: Report) -> Table:
    table = Table("", "lower", "plan", "upper", "what moves it most", box=None)
    table.title, table.title_justify = escape(_title(report)), "left"
    for name, (label, form) in FIGURES.items():
        one = report.bounds.get(name)
        if one is None:
            continue
        table.add_row(
            label,
            *(format(value, form) for value in (one.lower, one.typical, one.upper)),
            escape(dominant(report.effects, name) or "-"),
        )
    return table


def _effects(report: Report) -> RenderableType:
    """One assumption at a time."""
    if not report.effects:
        return Text("Nothing is uncertain: every number is exact.")
    table = Table("assumption", "EUR per month", "replicas", "EUR per million tokens", box=None)
    for one in report.effects:
        table.add_row(
            escape(EXPLAINED.get(one.assumption, one.assumption)),
            *(
                f"{_shown(one.at_low[metric], form)} to {_shown(one.at_high[metric], form)}"
                for metric, form in (
                    ("eur_per_month", ",.0f"),
                    ("replicas", ".0f"),
                    ("eur_per_mtok", ",.3g"),
                )
            ),
        )
    first = dominant(report.effects, "eur_per_month")
    said = f"The monthly bill depends most on {EXPLAINED.get(first, first)}." if first else ""
    return Group(table, Text(said))


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
