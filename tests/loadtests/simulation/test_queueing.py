from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.simulation.queueing import (
    BatchingModel,
    Sample,
    attainment,
    draw_tokens,
    max_rate,
    simulate,
    true_replicas,
)
from loadtests.workload.scenario import SloConfig, TokensConfig
from serving.errors import ConfigError

SMALL = BatchingModel(slots=8, knee=2, slope=0.5)
INPUT, OUTPUT = TokensConfig(mean=200, cv=0.5), TokensConfig(mean=30, cv=0.5)
SLO = SloConfig(ttft_ms=150, tpot_ms=19, target=0.9)

models = st.builds(
    BatchingModel,
    slots=st.integers(1, 5),
    prefill_base_s=st.floats(0.01, 1),
    prefill_per_token_s=st.floats(0, 0.01),
    itl_base_s=st.floats(0.001, 0.5),
    knee=st.floats(0.5, 4),
    slope=st.floats(0, 1),
)
requests = st.lists(
    st.tuples(st.floats(0, 2), st.integers(1, 50), st.integers(1, 20)), min_size=1, max_size=40
)


def columns(drawn: list[tuple[float, int, int]]) -> tuple[list[float], list[int], list[int]]:
    """Gaps become arrivals."""
    gaps, inputs, outputs = zip(*drawn, strict=True)
    return np.cumsum(gaps).tolist(), list(inputs), list(outputs)


def by_definition(
    model: BatchingModel,
    replicas: int,
    arrivals: list[float],
    inputs: list[int],
    outputs: list[int],
) -> list[tuple[float, float, float]]:
    """The rules written down once more, slowly: looks at all requests before, at every request."""
    done: list[tuple[float, float, float, int]] = []
    for arrival, prompt, output in zip(arrivals, inputs, outputs, strict=True):
        earliest = max([arrival, *(start for start, *_ in done)])
        for now in sorted({earliest, *(end for _, _, end, _ in done if end > earliest)}):
            batches = [0] * replicas
            for start, _, end, replica in done:
                batches[replica] += start <= now < end
            if min(batches) < model.slots:
                break
        replica = batches.index(min(batches))
        first = now + model.prefill_s(prompt)
        end = first + (output - 1) * model.itl_s(batches[replica] + 1)
        done.append((now, first, end, replica))
    return [(start, first, end) for start, first, end, _ in done]


@given(models, st.integers(1, 4), requests)
def test_it_does_what_its_rules_say(
    model: BatchingModel, replicas: int, drawn: list[tuple[float, int, int]]
) -> None:
    arrivals, inputs, outputs = columns(drawn)
    simulated = simulate(model, arrivals, inputs, outputs, replicas)
    expected = by_definition(model, replicas, arrivals, inputs, outputs)
    np.testing.assert_allclose(np.column_stack(simulated), expected, rtol=1e-9)


@given(models, st.integers(1, 4), requests)
def test_nobody_starts_early_or_overtakes_and_places_are_never_more_than_there_are(
    model: BatchingModel, replicas: int, drawn: list[tuple[float, int, int]]
) -> None:
    arrivals, inputs, outputs = columns(drawn)
    start, first, end = simulate(model, arrivals, inputs, outputs, replicas)
    assert (start >= arrivals).all()
    assert (np.diff(start) >= 0).all()
    assert (first <= end).all()
    places = model.slots * replicas
    for index, now in enumerate(start):
        running = int((end[: index + 1] > now).sum())
        assert running <= places
        if now > max(arrivals[index], *start[:index], -1.0):
            # Who waited took the place of one that left at that moment: none was free before.
            assert int(((start[:index] < now) & (end[:index] >= now)).sum()) >= places


@given(models, st.integers(1, 4), requests)
def test_with_one_more_replica_nobody_starts_later_where_the_batch_costs_nothing(
    model: BatchingModel, replicas: int, drawn: list[tuple[float, int, int]]
) -> None:
    flat = model.model_copy(update={"slope": 0.0})
    few, more = (simulate(flat, *columns(drawn), count) for count in (replicas, replicas + 1))
    assert (more.start_s <= few.start_s + 1e-9).all()


@settings(max_examples=20, deadline=None)
@given(models, st.integers(1, 3), st.floats(0.3, 1.3), st.integers(0, 100))
def test_with_one_more_replica_the_slo_is_kept_as_well_where_the_batch_costs(
    model: BatchingModel, replicas: int, load: float, seed: int
) -> None:
    sample = Sample.draw(TokensConfig(mean=20), TokensConfig(mean=8, cv=0.5), seed, 1500)
    alone_s = model.prefill_s(20) + 8 * model.itl_s(1)
    slo = SloConfig(ttft_ms=3000 * alone_s, tpot_ms=1300 * model.itl_s(1))
    rate = load * replicas * model.most_per_s(20, 8)
    few, more = (attainment(model, slo, rate, count, sample) for count in (replicas, replicas + 1))
    assert more >= few - 0.02


def erlang_c_wait_s(rate: float, service_s: float, servers: int) -> float:
    """Mean wait in M/M/c."""
    load = rate * service_s
    rho = load / servers
    last = load**servers / math.factorial(servers) / (1 - rho)
    waits = last / (sum(load**k / math.factorial(k) for k in range(servers)) + last)
    return waits * service_s / (servers - load)


@pytest.mark.parametrize(("slots", "replicas", "rho"), [(1, 1, 0.6), (4, 1, 0.8), (2, 3, 0.8)])
def test_with_exponential_service_the_mean_wait_is_erlangs(
    slots: int, replicas: int, rho: float
) -> None:
    rng = np.random.default_rng(7)
    count, servers = 150_000, slots * replicas
    # A prompt's tokens are its service time in seconds; there is one token of output.
    model = BatchingModel(slots=slots, prefill_base_s=0, prefill_per_token_s=1, knee=slots)
    arrivals = np.cumsum(rng.exponential(1 / (rho * servers), count))
    times = simulate(model, arrivals, rng.exponential(1, count), np.ones(count), replicas)
    wait_s = float(np.mean(times.start_s - arrivals))
    assert wait_s == pytest.approx(erlang_c_wait_s(rho * servers, 1, servers), rel=0.06)


def test_with_fixed_service_the_mean_wait_is_pollaczek_and_khinchines() -> None:
    rng = np.random.default_rng(8)
    count, rho = 150_000, 0.7
    # One second: 0.2 of prefill and eight gaps of 0.1.
    model = BatchingModel(
        slots=1, prefill_base_s=0.2, prefill_per_token_s=0, itl_base_s=0.1, knee=1
    )
    arrivals = np.cumsum(rng.exponential(1 / rho, count))
    times = simulate(model, arrivals, np.ones(count), np.full(count, 9), 1)
    assert float(np.mean(times.start_s - arrivals)) == pytest.approx(
        rho / (2 * (1 - rho)), rel=0.05
    )


def test_above_the_knee_tokens_come_more_slowly() -> None:
    model = BatchingModel(slots=4, prefill_base_s=1, itl_base_s=0.1, knee=2, slope=0.5)
    first, end = simulate(model, [0, 0, 0, 0], [0] * 4, [11] * 4, 1)[1:]
    assert end - first == pytest.approx([1, 1, 1.25, 1.5])


@pytest.mark.parametrize(("slope", "best"), [(0.5, 8), (1.5, 2)])
def test_what_replicas_carry_at_most_is_what_comes_out_at_their_best_batch(
    slope: float, best: int
) -> None:
    model = BatchingModel(slots=8, prefill_base_s=0.01, knee=2, slope=slope)
    at_best = model.model_copy(update={"slots": best})
    end_s = simulate(at_best, np.zeros(4000), np.full(4000, 100), np.full(4000, 50), 2).end_s
    assert 4000 / end_s.max() == pytest.approx(2 * model.most_per_s(100, 50), rel=0.02)


def test_the_highest_rate_keeps_the_slo_and_a_little_more_does_not() -> None:
    rate = max_rate(SMALL, SLO, 2, INPUT, OUTPUT, seed=3, requests=8000)
    sample = Sample.draw(INPUT, OUTPUT, 3, 8000)
    assert attainment(SMALL, SLO, rate, 2, sample) >= SLO.target
    assert attainment(SMALL, SLO, rate * 1.01, 2, sample) < SLO.target
    assert rate < 2 * SMALL.most_per_s(200, 30)


def test_an_engine_twice_as_fast_carries_twice_as_much_in_half_the_time() -> None:
    times = ("prefill_base_s", "prefill_per_token_s", "itl_base_s")
    fast = SMALL.model_copy(update={name: getattr(SMALL, name) / 2 for name in times})
    half = SLO.model_copy(update={"ttft_ms": 75.0, "tpot_ms": 9.5})
    slow_rate, fast_rate = (
        max_rate(model, slo, 1, INPUT, OUTPUT, requests=4000)
        for model, slo in ((SMALL, SLO), (fast, half))
    )
    assert fast_rate == pytest.approx(2 * slow_rate, rel=1e-6)


def test_an_slo_that_nothing_meets_has_no_rate_and_no_number_of_replicas() -> None:
    slo = SloConfig(ttft_ms=1)
    assert max_rate(SMALL, slo, 1, INPUT, OUTPUT, requests=1000) == 0
    with pytest.raises(ConfigError, match="slo: not even a lone request"):
        true_replicas(SMALL, slo, 5, INPUT, OUTPUT, requests=1000)


def test_without_an_slo_the_rate_is_what_they_carry_at_most() -> None:
    most = 3 * SMALL.most_per_s(200, 30)
    rate = max_rate(SMALL, SloConfig(), 3, TokensConfig(mean=200), TokensConfig(mean=30))
    assert rate == pytest.approx(most)


@pytest.mark.parametrize("rate", [1.0, 60.0, 333.0])
def test_the_true_number_of_replicas_is_the_smallest_that_keeps_the_slo(rate: float) -> None:
    replicas = true_replicas(SMALL, SLO, rate, INPUT, OUTPUT, seed=2, requests=6000)
    rates = [
        max_rate(SMALL, SLO, count, INPUT, OUTPUT, seed=2, requests=6000)
        for count in (replicas, max(1, replicas - 1))
    ]
    assert rates[0] * 1.01 >= rate
    assert replicas == 1 or rates[1] < rate


def test_more_replicas_than_allowed_are_an_error_that_names_the_rate() -> None:
    with pytest.raises(ConfigError, match="rate_per_s: 200000 needs more than 20"):
        true_replicas(SMALL, SLO, 2e5, INPUT, OUTPUT, requests=1000, most=20)


def test_tokens_have_the_mean_and_the_spread_that_were_asked_for() -> None:
    drawn = draw_tokens(TokensConfig(mean=500, cv=0.8), 100_000, np.random.default_rng(1))
    assert drawn.mean() == pytest.approx(500, rel=0.02)
    assert drawn.std() / drawn.mean() == pytest.approx(0.8, rel=0.05)
    cut = draw_tokens(
        TokensConfig(mean=500, cv=0.8, min=300, max=600), 1000, np.random.default_rng(2)
    )
    assert (cut.min(), cut.max()) == (300, 600)
    assert set(draw_tokens(TokensConfig(mean=7), 10, np.random.default_rng(3))) == {7}


def test_a_longer_sample_begins_with_the_shorter_one() -> None:
    short, long = (Sample.draw(INPUT, OUTPUT, 5, count) for count in (100, 300))
    for name in ("gaps", "input_tokens", "output_tokens"):
        assert (getattr(short, name) == getattr(long, name)[:100]).all()
    assert (Sample.draw(INPUT, OUTPUT, 6, 100).gaps != short.gaps).any()


@pytest.mark.parametrize(
    ("arrivals", "inputs", "replicas", "complaint"),
    [
        ([1, 0], [1, 1], 1, "must be in order"),
        ([0, 1], [1], 1, "as many"),
        ([0, 1], [1, 1], 0, "replicas: must be at least 1"),
    ],
)
def test_wrong_input_is_named(
    arrivals: list[float], inputs: list[int], replicas: int, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        simulate(SMALL, arrivals, inputs, [1, 1], replicas)


def test_no_requests_are_no_trouble() -> None:
    assert [len(column) for column in simulate(SMALL, [], [], [], 1)] == [0, 0, 0]
