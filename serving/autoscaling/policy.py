"""The number of replicas of a model: from its engines' reports, its arrivals and its schedules. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Literal, NamedTuple

from serving.autoscaling.capacity import LEARNING_RATE, Capacity
from serving.autoscaling.history import SAMPLE_S, TREND_LEAST_S, TREND_SPANS, History
from serving.autoscaling.schedules import scheduled_minimum
from serving.autoscaling.signals import Signals
from serving.config.autoscaling import AutoscalingConfig

# What decided: fixed words, for metrics.
Reason = Literal["queue", "load", "trend", "kv", "schedule", "spare", "wake", "hold", "idle"]

# Seconds that a request is worked on and that a start takes, before they were measured.
RESIDENCE_PRIOR_S = 10.0
COLD_START_PRIOR_S = 60.0
# Nothing shorter is worth planning for, and nothing longer can be foreseen.
COLD_START_BOUNDS_S = (10.0, 300.0)
# A replica is given up only where the rest would have this share of their capacity to spare.
BAND = 0.1
# When the KV cache is full, vLLM preempts requests.
KV_CACHE_TARGET = 0.9
# A queue is to be gone in this share of a cold start, once the replicas that it calls for are there.
DRAIN_SHARE = 2 / 3
# A replica with this share of the requests it should have counts as full.
FULL_SHARE = 0.8
# How long requests take on full replicas is forgotten at this pace, while none is full.
FORGET_RESIDENCE_S = 1800.0
# Replicas that are needed again within so many times `hold_s` were given up too early: from then on they
# are held twice as long, and at most so many times as long.
REGRET_HOLDS, MAX_PATIENCE = 2.0, 4.0
# With `max_step_up` or `max_step_down`, the next step in that direction comes so much later.
STEP_PERIOD_S = 10.0
# What measurement and rounding may add without another replica being started.
EPSILON = 1e-6


@dataclass(frozen=True)
class ScalerState:
    """What the policy remembers from one call to the next."""

    history: History = field(default_factory=History)
    capacity: Capacity = field(default_factory=Capacity)
    # The largest needs of the last `hold_s`: when, and how many replicas; falling.
    needs: tuple[tuple[float, int], ...] = ()
    cold_start_s: float | None = None
    # Seconds that a request is worked on, lately and on replicas with as many requests as they should
    # have: a batch that is not full is quicker, and tells too little of how many replicas are needed.
    residence_s: float | None = None
    full_residence_s: float | None = None
    # Since when more replicas are asked for than run.
    short_since_s: float | None = None
    stepped_up_s: float = -math.inf
    stepped_down_s: float = -math.inf
    # When replicas were last given up, unless that was regretted; and by what `hold_s` is multiplied.
    gave_up_s: float = -math.inf
    patience: float = 1.0


class Decision(NamedTuple):
    """The number of replicas, the state for the next call, and the reason."""

    replicas: int
    state: ScalerState
    reason: Reason


@dataclass(frozen=True)
class Need:
    """Replicas that are needed, by reason; not whole numbers."""

    load: float = 0.0
    trend: float = 0.0
    queue: float = 0.0
    kv: float = 0.0

    def most(self) -> tuple[float, Reason]:
        """The largest need, and the plainest reason for it."""
        reasons: tuple[Reason, ...] = ("load", "kv", "trend", "queue")
        reason = max(reasons, key=lambda name: getattr(self, name))
        return float(getattr(self, reason)), reason


def decide(
    signals: Signals,
    config: AutoscalingConfig,
    state: ScalerState,
    now_s: float,
    utc_s: float | None = None,
) -> Decision:
    """Replicas for a model: upwards at once, downwards after `hold_s` of lower need.

    Args:
        signals: what the replicas report, and how many there are.
        config: the model's `replicas` key (`config/autoscaling.py`).
        state: of the last decision; `ScalerState()` at first.
        now_s: seconds of a monotonic clock, by which `hold_s` is measured. Calls may be as frequent
            as one likes.
        utc_s: seconds since 1970, for the schedules; `now_s` where that is the same.
    """
    utc_s = now_s if utc_s is None else utc_s
    state = _remember(signals, config, state, now_s)
    need, reason = _need(signals, config, state, now_s).most()
    if signals.queued and need <= 0:
        need, reason = 1.0, "wake"
    floor = max(
        config.min,
        scheduled_minimum(config.schedules, utc_s),
        scheduled_minimum(config.schedules, utc_s + _cold_start_s(config, state)),
    )
    wanted = _whole(need, floor, config)
    why = _reason(need, reason, floor, signals.target, config)
    kept = _whole(need / (1 - BAND), floor, config)
    state = _hold(state, signals.target, kept, now_s, config.hold_s * state.patience)
    if wanted >= signals.target:
        return _up(wanted, why, signals.target, config, state, now_s)
    enough = min(state.needs[0][1], config.max)
    if enough >= signals.target:
        return Decision(signals.target, state, "hold")
    return _down(enough, why, signals.target, config, state, now_s)


def _remember(
    signals: Signals, config: AutoscalingConfig, state: ScalerState, now_s: float
) -> ScalerState:
    """Record what is new since the last sample."""
    starts = [r.start_s for r in signals.replicas.values() if r.start_s]
    if starts:
        state = replace(state, cold_start_s=median(starts))
    if signals.running >= signals.target:
        state = replace(state, short_since_s=None)
    elif state.short_since_s is None:
        state = replace(state, short_since_s=now_s)
    passed_s = now_s - state.history.last_s
    if 0 <= passed_s < SAMPLE_S * 0.95:
        return state
    if passed_s < 0:
        # Another clock, of another process: what was seen cannot be put in order with what will be.
        state = ScalerState(
            capacity=state.capacity,
            cold_start_s=state.cold_start_s,
            residence_s=state.residence_s,
            full_residence_s=state.full_residence_s,
        )
    keep_s = max(max(TREND_SPANS) * _cold_start_s(config, state), TREND_LEAST_S) + SAMPLE_S
    passed_s = min(max(passed_s, 0.0), 60.0)
    state = replace(
        state,
        history=state.history.add(signals, now_s, keep_s),
        capacity=state.capacity.learn(signals, config, passed_s),
    )
    return _remember_residence(signals, config, state, passed_s)


def _remember_residence(
    signals: Signals, config: AutoscalingConfig, state: ScalerState, passed_s: float
) -> ScalerState:
    now_s = state.history.residence_s()
    if now_s is None or not signals.replicas:
        return state
    full_s = state.full_residence_s or now_s
    share = signals.busy / (len(signals.replicas) * state.capacity.requests(config))
    if share >= FULL_SHARE:
        full_s += LEARNING_RATE * (now_s - full_s)
    else:
        full_s += (now_s - full_s) * passed_s / FORGET_RESIDENCE_S
    return replace(state, residence_s=now_s, full_residence_s=max(full_s, now_s))


def _need(signals: Signals, config: AutoscalingConfig, state: ScalerState, now_s: float) -> Need:
    """Replicas for the present requests, for arriving ones, and for waiting ones."""
    present = signals.open_requests + signals.gateway_queue
    if present <= 0 and not state.history.just_came:
        return Need()
    capacity = state.capacity.requests(config)
    kv = sum(r.kv_cache_use for r in signals.replicas.values()) / KV_CACHE_TARGET
    busy = signals.busy
    if not state.history.counters:
        # Who does not know what comes can but count what there is.
        return Need(load=present / capacity, kv=kv)
    residence_s = state.residence_s or RESIDENCE_PRIOR_S
    full_residence_s = state.full_residence_s or residence_s
    served_per_s = busy / residence_s
    # Half of the objective: a queue is seen with some delay, and prompts take time as well.
    backlog = max(0.0, signals.backlog - served_per_s * config.ttft_objective_s / 2)
    full = backlog > 0 or busy > capacity * len(signals.replicas)
    arrivals_per_s = state.history.arrivals_per_s(at_once=full) or 0.0
    # Requests that would be worked on if there were room for all that come.
    wanted = max(state.history.busy(), arrivals_per_s * full_residence_s)
    if state.residence_s is None:
        wanted = min(wanted, max(present, 1.0))
    cold_start_s = _cold_start_s(config, state)
    rise = state.history.rise_per_s(cold_start_s) * full_residence_s
    queue = 0.0
    if backlog > 0:
        # The queue that is left when the new replicas are there must be gone soon after; but replicas that
        # start longer than they then work would be a waste.
        backlog += max(0.0, arrivals_per_s - served_per_s) * _ahead_s(cold_start_s, state, now_s)
        queue = (wanted + backlog * full_residence_s / (cold_start_s * DRAIN_SHARE)) / capacity
    return Need(
        load=wanted / capacity,
        trend=(wanted + rise) / capacity if rise > 0 else 0.0,
        queue=queue,
        kv=kv,
    )


def _ahead_s(cold_start_s: float, state: ScalerState, now_s: float) -> float:
    """Seconds until the replicas that are asked for serve: some may have been starting for a while."""
    if state.short_since_s is None:
        return cold_start_s
    return max(0.0, cold_start_s - (now_s - state.short_since_s))


def _whole(need: float, floor: int, config: AutoscalingConfig) -> int:
    """Whole replicas, with spares, within floor and `max`."""
    return min(max(_with_spares(need, floor, config), floor), config.max)


def _with_spares(need: float, floor: int, config: AutoscalingConfig) -> int:
    needed = max(math.ceil(need - EPSILON), 1 if floor else 0)
    # A model that sleeps has no spares.
    return needed + config.spare if needed else 0


def _reason(
    need: float, reason: Reason, floor: int, target: int, config: AutoscalingConfig
) -> Reason:
    """The reason that decided: the need, the spares or the floor."""
    needed, with_spares = math.ceil(need - EPSILON), _with_spares(need, floor, config)
    if floor > max(with_spares, config.min):
        return "schedule"
    if needed <= target < min(with_spares, config.max):
        return "spare"
    return reason if needed else "idle"


def _hold(state: ScalerState, target: int, kept: int, now_s: float, hold_s: float) -> ScalerState:
    """Record the need; the first of `needs` is the largest of the last `hold_s`."""
    needs = state.needs or ((now_s, target),)
    larger = tuple(
        (since_s, need) for since_s, need in needs if need > kept and now_s - since_s < hold_s
    )
    return replace(state, needs=(*larger, (now_s, kept)))


def _up(
    wanted: int,
    reason: Reason,
    target: int,
    config: AutoscalingConfig,
    state: ScalerState,
    now_s: float,
) -> Decision:
    step = config.max_step_up
    if wanted > target and now_s - state.gave_up_s < REGRET_HOLDS * config.hold_s:
        patience = min(state.patience * 2, MAX_PATIENCE)
        state = replace(state, patience=patience, gave_up_s=-math.inf)
    if step is None or wanted == target:
        return Decision(wanted, state, reason)
    if target and now_s - state.stepped_up_s < STEP_PERIOD_S:
        return Decision(max(target, config.min), state, reason)
    wanted = max(min(wanted, target + step), config.min)
    return Decision(wanted, replace(state, stepped_up_s=now_s), reason)


def _down(
    enough: int,
    reason: Reason,
    target: int,
    config: AutoscalingConfig,
    state: ScalerState,
    now_s: float,
) -> Decision:
    step = config.max_step_down
    if step is not None:
        if now_s - state.stepped_down_s < STEP_PERIOD_S:
            return Decision(min(target, config.max), state, "hold")
        enough = min(max(enough, target - step), config.max)
    if REGRET_HOLDS * config.hold_s < now_s - state.gave_up_s < math.inf:
        state = replace(state, patience=max(1.0, state.patience / 2))
    return Decision(enough, replace(state, stepped_down_s=now_s, gave_up_s=now_s), reason)


def _cold_start_s(config: AutoscalingConfig, state: ScalerState) -> float:
    """Seconds until a replica requested now will answer."""
    if config.cold_start_s is not None:
        known_s = config.cold_start_s
    else:
        known_s = state.cold_start_s or COLD_START_PRIOR_S
    least_s, most_s = COLD_START_BOUNDS_S
    return min(max(known_s, least_s), most_s)
