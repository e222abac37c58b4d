"""Reads sweep.json: the rate that was shown to hold, the one at which the SLO ends, how long requests took.

What was confirmed lies below the truth by design: Wilson's lower bound of all runs of a rate had to keep the
SLO. The most probable rate is where the share of good requests itself crosses the target, over all runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson

from loadtests.plan.model import CPU
from loadtests.workload.scenario import SloConfig
from serving.config.base import validated
from serving.errors import ConfigError

# How far below the target a run's share counts at least, when its backlog grew.
BACKLOG_MISSES = 0.02


@dataclass(frozen=True, slots=True)
class Measured:
    """One sweep: of a model, on some hardware, at one length of requests.

    `held_per_s` is the highest rate that was confirmed, `likely_per_s` where the SLO ends most probably, not
    less. Above `failed_per_s` it certainly fails (None: nothing failed, so nothing is known above). `e2e_s`
    are pairs of rate and mean seconds of a request, of the rates that held. `turns` says how often each place
    was taken in the shortest run at the confirmed rate: few, and it ended before the queue had built up.
    """

    model: str
    gpu: str
    gpus_per_replica: int
    replicas: int
    input_tokens: float
    output_tokens: float
    total_tokens_p95: float
    slo: SloConfig
    held_per_s: float
    likely_per_s: float
    failed_per_s: float | None
    e2e_s: tuple[tuple[float, float], ...]
    turns: float
    created: str = ""
    where: str = "sweep.json"

    @property
    def hardware(self) -> tuple[str, int]:
        """GPU kind and GPUs per replica."""
        return self.gpu, self.gpus_per_replica


def read_sweep(path: Path) -> Measured:
    """Read a file, or the sweep.json of a folder.

    Raises:
        ConfigError: it cannot be read, is no sweep, or found no rate that holds.
    """
    file = path / "sweep.json" if path.is_dir() else path
    try:
        document = orjson.loads(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}", param="--sweep") from None
    except orjson.JSONDecodeError:
        raise ConfigError(f"{file}: is not JSON", param="--sweep") from None
    if not isinstance(document, dict) or document.get("comptoir_sweep") != 1:
        raise ConfigError(
            f"{file}: is not a sweep: give the sweep.json that `comptoir load sweep` leaves",
            param="--sweep",
        )
    return parse_sweep(document, str(file))


def parse_sweep(document: Mapping[str, Any], where: str) -> Measured:
    """A sweep's document.

    Raises:
        ConfigError: a key is missing or out of range, or no rate was confirmed.
    """
    hardware = document.get("hardware") or {}
    held = _confirmed_rate(document, where)
    failed = document.get("rate_fails_per_s")
    runs = list(document.get("points", ()))
    points = _held(runs, held, where)
    slo = validated(SloConfig, document.get("slo") or {}, f"{where}: slo")
    likely = (crossing(runs, slo.target) if failed is not None else None) or held
    gpu = hardware.get("gpu")
    off = max(likely / held, held / likely)
    return Measured(
        model=str(document.get("model", "")),
        gpu=str(gpu).lower() if gpu else CPU,
        gpus_per_replica=max(1, int(hardware.get("gpus_per_replica") or 1)),
        replicas=int(hardware.get("replicas") or 1),
        input_tokens=_number(document, "input_tokens_mean", where),
        output_tokens=_number(document, "output_tokens_mean", where),
        total_tokens_p95=float(document.get("total_tokens_p95") or 0),
        slo=slo,
        held_per_s=held,
        likely_per_s=likely,
        # As far above the likely rate as the confirmed one lies below it, at least.
        failed_per_s=None if failed is None else max(float(failed), likely * off),
        e2e_s=tuple(sorted(_by_rate(points).items())),
        turns=min((_turns(one) for one in points if one["rate_per_s"] == held), default=math.inf),
        created=str(document.get("created", "")),
        where=where,
    )


def _confirmed_rate(document: Mapping[str, Any], where: str) -> float:
    if not document.get("confirmed") or not document.get("rate_per_s"):
        raise ConfigError(
            f"{where}: rate_per_s: the sweep confirmed no rate that keeps the SLO: sweep again with a "
            "lower --from, or with an SLO that this hardware can keep",
            param="rate_per_s",
        )
    return _number(document, "rate_per_s", where)


def _held(runs: list[dict[str, Any]], held: float, where: str) -> list[dict[str, Any]]:
    """The runs up to the rate that was confirmed; at least one of them says how long its requests took."""
    points = [
        one
        for one in runs
        if one["rate_per_s"] <= held and one.get("valid", True) and not one.get("broken")
    ]
    if not any(one["e2e_mean_s"] > 0 for one in points):
        raise ConfigError(
            f"{where}: points: none of them held, although rate_per_s says so: sweep again",
            param="points",
        )
    return points


def crossing(runs: Sequence[Mapping[str, Any]], target: float) -> float | None:
    """The rate at which the share of good requests falls below the target; None where it never does.

    The shares are made to fall with the rate (isotonic regression, weighted by requests); between two of its
    levels the rate is interpolated in logarithms. A run whose backlog grew cannot go on, and one with
    broken answers proves nothing: its share counts as below the target.
    """
    levels: list[_Level] = []
    for one in sorted(runs, key=lambda run: float(run["rate_per_s"])):
        if not one.get("valid", True) or one["requests"] < 1:
            continue
        share = float(one["attainment"])
        if one.get("backlog_grows") or one.get("broken"):
            share = min(share, target - BACKLOG_MISSES)
        place = math.log(one["rate_per_s"])
        levels.append(_Level(float(one["requests"]), place, place, share))
        while len(levels) > 1 and levels[-1].share >= levels[-2].share:
            levels[-2:] = [levels[-2].merged(levels[-1])]
    for before, after in pairwise(levels):
        if before.share >= target > after.share:
            part = (before.share - target) / (before.share - after.share)
            return math.exp(before.last + part * (after.first - before.last))
    return None


@dataclass(frozen=True, slots=True)
class _Level:
    """Runs of rates from `first` to `last` (logarithms), taken for one share of good requests."""

    requests: float
    first: float
    last: float
    share: float

    def merged(self, other: _Level) -> _Level:
        """Both, the other one's rates being higher."""
        requests = self.requests + other.requests
        share = (self.requests * self.share + other.requests * other.share) / requests
        return _Level(requests, self.first, other.last, share)


def _turns(run: Mapping[str, Any]) -> float:
    """Requests of a run over those in flight: its length in requests' durations, by Little's law."""
    in_flight = float(run.get("in_flight_mean") or 0)
    return float(run["requests"]) / in_flight if in_flight > 0 else math.inf


def _by_rate(points: list[dict[str, Any]]) -> dict[float, float]:
    """Seconds of a request by rate; of several runs at a rate, their mean."""
    found: dict[float, list[float]] = {}
    for one in points:
        if one["e2e_mean_s"] > 0:
            found.setdefault(float(one["rate_per_s"]), []).append(float(one["e2e_mean_s"]))
    return {rate: sum(values) / len(values) for rate, values in found.items()}


def _number(document: Mapping[str, Any], key: str, where: str) -> float:
    value = document.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError(
            f"{where}: {key}: must be a number above 0, not {value!r}: sweep again", param=key
        )
    return float(value)
