"""How many replicas a model gets, and why."""

from __future__ import annotations

import random
from typing import Any, get_args

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from serving.autoscaling.policy import MAX_PATIENCE, Reason, ScalerState, decide
from serving.autoscaling.signals import ReplicaSignals, Signals
from serving.config.autoscaling import AutoscalingConfig
from tests.autoscaling.playing import MONDAY_S, Model, ask, replicas

# Without shrinking, which takes minutes with so many numbers.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
unhurried = settings(deadline=None, phases=PHASES)
few = settings(deadline=None, phases=PHASES, max_examples=15)


# ---- up ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("open_requests", "wanted"), [(1, 1), (10, 1), (11, 2), (35, 4), (900, 4)])
def test_more_load_gets_more_replicas_at_once(open_requests: float, wanted: int) -> None:
    assert ask(open_requests, 1).replicas == wanted


def test_a_sleeping_model_wakes_for_one_who_waits() -> None:
    assert ask(0, 0).replicas == 0
    decision = ask(0, 0, queued=1.0)
    assert (decision.replicas, decision.reason) == (1, "wake")


def test_a_queue_that_builds_starts_replicas_within_seconds() -> None:
    model = Model(AutoscalingConfig(max=16))
    model.play(300, 3.0)
    assert model.running == 1
    model.play(5, 24.0)
    assert model.running > 1
    assert model.changes[-1][2] == "queue"


def test_a_rise_starts_replicas_before_they_are_needed() -> None:
    def first_change(cold_start_s: float) -> float:
        model = Model(AutoscalingConfig(max=16, cold_start_s=cold_start_s), running=4)
        model.play(300, 12.0)
        for second in range(600):
            model.play(1, 12.0 + second * 0.02)
            if model.running > 4:
                return second
        raise AssertionError("nothing was started")

    quick, slow = first_change(10.0), first_change(120.0)
    assert slow < quick - 30


def test_a_step_is_not_taken_for_a_rise_that_goes_on() -> None:
    model = Model(AutoscalingConfig(max=16, cold_start_s=30.0), running=8)
    model.play(300, 12.0)
    most = 0
    for _ in range(240):
        most = max(most, model.play(1, 20.0).replicas)
    assert most <= 8


def test_a_full_kv_cache_asks_for_another_replica() -> None:
    signals = Signals(replicas(2, open_requests=5, kv_cache_use=0.95), running=2, target=2)
    decision = decide(signals, AutoscalingConfig(max=8), ScalerState(), MONDAY_S)
    assert (decision.replicas, decision.reason) == (3, "kv")


def test_requests_that_gateways_hold_count_once_however_many_replicas_tell() -> None:
    signals = Signals(replicas(2, open_requests=30, gateway_queue=40), running=2, target=2)
    assert decide(signals, AutoscalingConfig(max=8), ScalerState(), MONDAY_S).replicas == 4


def test_a_long_start_asks_for_more_replicas_as_the_queue_grows_meanwhile() -> None:
    def asked_for(cold_start_s: float) -> int:
        model = Model(AutoscalingConfig(max=64, cold_start_s=cold_start_s, max_step_up=63))
        model.play(300, 3.0)
        model.play(20, 24.0)
        return model.changes[0][1]

    assert asked_for(60.0) >= asked_for(10.0)


def test_the_cold_start_is_the_measured_one_and_that_of_the_config_wins() -> None:
    signals = Signals(replicas(3, open_requests=1, start_s=47.0), running=3, target=3)
    state = decide(signals, AutoscalingConfig(max=4), ScalerState(), MONDAY_S).state
    assert state.cold_start_s == 47.0
    asleep = decide(Signals(), AutoscalingConfig(max=4), state, MONDAY_S + 60)
    assert asleep.state.cold_start_s == 47.0, "it is forgotten when the model sleeps"


# ---- down --------------------------------------------------------------------------------------------


def test_less_load_takes_replicas_away_only_after_a_while() -> None:
    decision = ask(5, 3)
    assert (decision.replicas, decision.reason) == (3, "hold")
    assert ask(5, 3, now_s=MONDAY_S + 59, state=decision.state).replicas == 3
    assert ask(5, 3, now_s=MONDAY_S + 60, state=decision.state).replicas == 1


def test_a_moment_of_load_starts_the_wait_anew() -> None:
    state = ask(5, 3).state
    state = ask(30, 3, now_s=MONDAY_S + 50, state=state).state
    decision = ask(5, 3, now_s=MONDAY_S + 61, state=state)
    assert decision.replicas == 3
    assert ask(5, 3, now_s=MONDAY_S + 111, state=decision.state).replicas == 1


def test_the_most_that_was_needed_lately_is_kept() -> None:
    state = ask(38, 4).state
    state = ask(18, 4, now_s=MONDAY_S + 30, state=state).state
    state = ask(5, 4, now_s=MONDAY_S + 59, state=state).state
    assert ask(5, 4, now_s=MONDAY_S + 61, state=state).replicas == 2
    assert ask(5, 4, now_s=MONDAY_S + 95, state=state).replicas == 1


def test_a_model_falls_asleep_when_nobody_came_for_a_while() -> None:
    state = ask(1, 1).state
    state = ask(0, 1, now_s=MONDAY_S + 1, state=state).state
    decision = ask(0, 1, now_s=MONDAY_S + 62, state=state)
    assert (decision.replicas, decision.reason) == (0, "idle")


def test_a_model_whose_requests_are_too_short_to_be_seen_stays_awake() -> None:
    config = AutoscalingConfig(min=0, max=2, hold_s=30.0)
    state, now_s = ScalerState(), MONDAY_S
    for second in range(300):
        now_s += 1.0
        load = replicas(1, arrived_requests=float(second // 20))
        decision = decide(Signals(load, 1, 1), config, state, now_s)
        assert decision.replicas == 1
        state = decision.state
    assert decide(Signals(load, 1, 1), config, state, now_s + 31).replicas == 0


def test_replicas_that_were_given_up_too_early_are_held_longer_the_next_time() -> None:
    state, now_s, waits = ScalerState(), MONDAY_S, []
    for _ in range(5):
        state = ask(15, 1, now_s=now_s, state=state).state
        began_s = now_s
        while ask(5, 2, now_s=now_s, state=state).replicas == 2:
            state = ask(5, 2, now_s=now_s, state=state).state
            now_s += 1
        state = ask(5, 2, now_s=now_s, state=state).state
        waits.append(now_s - began_s)
        now_s += 1
    assert waits[0] == pytest.approx(60, abs=2)
    assert waits[-1] == pytest.approx(60 * MAX_PATIENCE, abs=2)


def test_what_the_rest_could_barely_carry_is_kept() -> None:
    state = ask(19.5, 3, hold_s=0.0).state
    assert ask(19.5, 3, hold_s=0.0, state=state).replicas == 3
    assert ask(17.5, 3, hold_s=0.0, state=state).replicas == 2


def test_a_clock_that_is_set_back_blocks_nothing() -> None:
    state = ask(35, 1, max_step_up=1).state
    decision = ask(35, 2, now_s=MONDAY_S - 3600, max_step_up=1, state=state)
    assert decision.replicas == 3


# ---- spares, steps, schedules ------------------------------------------------------------------------


def test_a_spare_comes_on_top_of_what_is_needed() -> None:
    decision = ask(15, 2, spare=1)
    assert (decision.replicas, decision.reason) == (3, "spare")
    assert ask(15, 3, spare=1).replicas == 3
    assert ask(35, 4, spare=1).replicas == 4, "never more than max"


def test_a_model_that_may_sleep_keeps_no_spare_and_one_that_may_not_does() -> None:
    assert ask(0, 0, spare=1).replicas == 0
    assert ask(0, 1, spare=1, min=1).replicas == 2


def test_steps_are_limited_in_both_directions() -> None:
    decision = ask(35, 1, max_step_up=2)
    assert decision.replicas == 3
    assert ask(35, 3, max_step_up=2, now_s=MONDAY_S + 5, state=decision.state).replicas == 3
    assert ask(35, 3, max_step_up=2, now_s=MONDAY_S + 10, state=decision.state).replicas == 4
    down = ask(5, 4, max_step_down=1, hold_s=0.0)
    assert down.replicas == 3
    later = ask(5, 3, max_step_down=1, hold_s=0.0, now_s=MONDAY_S + 5, state=down.state)
    assert (later.replicas, later.reason) == (3, "hold")


OFFICE = {"days": "mon-fri", "from": "08:00", "to": "18:00", "min": 3}


def test_a_schedule_has_its_replicas_ready_when_it_begins() -> None:
    eight_s = MONDAY_S + 8 * 3600
    hours: dict[str, Any] = {"schedules": [OFFICE], "cold_start_s": 120}
    assert ask(0, 0, now_s=eight_s - 121, **hours).replicas == 0
    decision = ask(0, 0, now_s=eight_s - 120, **hours)
    assert (decision.replicas, decision.reason) == (3, "schedule")
    assert ask(0, 3, now_s=eight_s + 9 * 3600, **hours).replicas == 3


def test_after_a_schedule_the_model_sleeps_again() -> None:
    six_s = MONDAY_S + 18 * 3600
    state = ask(0, 3, now_s=six_s - 1, schedules=[OFFICE]).state
    assert ask(0, 3, now_s=six_s + 30, schedules=[OFFICE], state=state).replicas == 3
    assert ask(0, 3, now_s=six_s + 61, schedules=[OFFICE], state=state).replicas == 0


# ---- whatever happens --------------------------------------------------------------------------------

LOADS = st.floats(0, 1e6)
SIGNALS = st.builds(
    ReplicaSignals,
    open_requests=LOADS,
    running=LOADS,
    waiting=LOADS,
    kv_cache_use=st.floats(0, 1),
    tokens_per_s=LOADS,
    arrived_requests=st.none() | LOADS,
    gateway_queue=LOADS,
    start_s=st.none() | st.floats(0, 1e5),
)


@st.composite
def configs(draw: st.DrawFn, **fixed: Any) -> AutoscalingConfig:
    most = draw(st.integers(1, 12))
    values = {
        "min": draw(st.integers(0, most)),
        "max": most,
        "target_requests": draw(st.floats(0.5, 500)),
        "hold_s": draw(st.floats(0, 600)),
        "itl_objective_s": draw(st.none() | st.floats(0.001, 1)),
        "max_step_up": draw(st.none() | st.integers(1, 4)),
        "max_step_down": draw(st.none() | st.integers(1, 4)),
        "spare": draw(st.integers(0, most - 1)),
    }
    return AutoscalingConfig.model_validate(values | fixed)


# By second: how much time passes, what replicas report, and who waits for a replica.
EVENTS = st.lists(
    st.tuples(st.floats(0.1, 200), st.lists(SIGNALS, max_size=4), st.sampled_from([0.0, 2.0])),
    min_size=1,
    max_size=8,
)


@unhurried
@given(configs(), EVENTS, st.data())
def test_bounds_and_steps_hold_whatever_is_reported(
    config: AutoscalingConfig, events: Any, data: st.DataObject
) -> None:
    state, now_s = ScalerState(), MONDAY_S
    target = data.draw(st.integers(config.min, config.max))
    for passed_s, loads, queued in events:
        now_s += passed_s
        seen = {f"r{number}": load for number, load in enumerate(loads)}
        running = data.draw(st.integers(0, target))
        decision = decide(Signals(seen, running, target, queued), config, state, now_s)
        assert config.min <= decision.replicas <= config.max
        assert decision.replicas - target <= (config.max_step_up or config.max)
        assert target - decision.replicas <= (config.max_step_down or config.max)
        assert decision.reason in get_args(Reason)
        state, target = decision.state, decision.replicas


@unhurried
@given(configs(min=0), EVENTS, st.floats(0.1, 50))
def test_whoever_waits_for_a_sleeping_model_gets_a_replica(
    config: AutoscalingConfig, events: Any, queued: float
) -> None:
    state, now_s = ScalerState(), MONDAY_S
    for passed_s, loads, waiting in events:
        now_s += passed_s
        seen = {f"r{number}": load for number, load in enumerate(loads)}
        state = decide(Signals(seen, len(seen), len(seen), waiting), config, state, now_s).state
    assert decide(Signals(queued=queued), config, state, now_s + 1).replicas >= 1


@unhurried
@given(LOADS, LOADS, st.integers(1, 9), st.integers(0, 2))
def test_more_open_requests_never_get_fewer_replicas(
    one: float, other: float, current: int, spare: int
) -> None:
    less, more = sorted((one, other))
    config: dict[str, Any] = {"max": 9, "spare": spare}
    assert ask(less, current, **config).replicas <= ask(more, current, **config).replicas


def warm(running: int, arrivals_per_s: float) -> Model:
    model = Model(AutoscalingConfig(max=32, hold_s=0.0, max_step_up=1), running=running)
    model.play(90, arrivals_per_s)
    return model


@few
@given(st.integers(1, 4), st.floats(1, 12), LOADS, LOADS, LOADS, LOADS)
def test_the_more_wait_the_more_replicas(
    running: int, arrivals_per_s: float, held: float, more_held: float, waiting: float, more: float
) -> None:
    model = warm(running, arrivals_per_s)

    def wanted(held: float, waiting: float) -> int:
        loads = replicas(
            model.running,
            open_requests=20 + waiting,
            waiting=waiting,
            arrived_requests=model.arrived / model.running,
            gateway_queue=held,
        )
        signals = Signals(loads, model.running, model.running)
        config = AutoscalingConfig(max=1024, hold_s=0.0)
        return decide(signals, config, model.state, model.now_s + 0.1).replicas

    assert wanted(held, waiting) <= wanted(held + more_held, waiting + more)


@few
@given(st.floats(0.5, 30), st.floats(0.5, 30))
def test_the_more_come_the_more_replicas(one: float, other: float) -> None:
    less, more = sorted((one, other))

    def settled(arrivals_per_s: float) -> int:
        model = Model(AutoscalingConfig(max=64, hold_s=60.0))
        return model.play(400, arrivals_per_s).replicas

    assert settled(less) <= settled(more)


@few
@given(st.floats(4, 30), st.integers(0, 1_000_000))
def test_noise_does_not_flap(mean_per_s: float, seed: int) -> None:
    draw = random.Random(seed)
    noise = [draw.uniform(0.75, 1.25) for _ in range(240)]
    model = Model(AutoscalingConfig(max=64, cold_start_s=30.0), running=8)
    model.play(700, mean_per_s)
    model.changes.clear()
    for factor in noise:
        model.play(5, mean_per_s * factor)
    assert len(model.changes) <= 4, model.changes


@unhurried
@given(configs(max_step_up=None, max_step_down=None), SIGNALS, st.integers(0, 7 * 24 * 60))
def test_a_schedules_floor_holds_on_every_minute_of_the_week(
    config: AutoscalingConfig, load: ReplicaSignals, minute: int
) -> None:
    now_s = MONDAY_S + 60 * minute
    floor = min(3, config.max)
    hours = config.model_copy(
        update={"schedules": AutoscalingConfig(max=3, schedules=(OFFICE,)).schedules}
    )
    decision = decide(Signals({"r": load}, 1, min(1, config.max)), hours, ScalerState(), now_s)
    day, time_of_day = divmod(minute, 24 * 60)
    if day < 5 and 8 * 60 <= time_of_day < 18 * 60:
        assert decision.replicas >= floor
