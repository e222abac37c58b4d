from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.analysis.columns import Columns
from loadtests.analysis.summary import loop_lag, slos_of, summarise
from loadtests.run.record import Record
from loadtests.workload.scenario import Scenario, SloConfig
from tests.loadtests.analysis.by_hand import in_flight, is_good

Rows = list[dict[str, Any]]


def make_scenario(**changes: Any) -> Scenario:
    """Two classes of 20 requests per second together."""
    chat = {"name": "chat", "model": "small", "tenant": "shop", "slo": {"ttft_ms": 400}}
    rag = {"name": "rag", "kind": "rag", "model": "large", "slo": {"e2e_ms": 3000, "target": 0.9}}
    document = {
        "name": "mixed",
        "classes": [chat, rag],
        "arrivals": {"kind": "poisson", "rate_per_s": 20},
        "duration_s": 30,
        "warmup_s": 5,
    }
    return Scenario.model_validate(document | changes)


def make_records(
    seed: int = 1,
    count: int = 600,
    duration_s: float = 30,
    *,
    slow: float = 1.0,
    failing: float = 0.02,
    lag_s: float = 0.0004,
    gaps: int = 12,
) -> list[Record]:
    """What a server answers that takes `slow` times as long as it should."""
    random = np.random.default_rng(seed)
    found = []
    for number, at_s in enumerate(np.sort(random.uniform(0, duration_s, count)).tolist()):
        is_rag = random.random() < 0.3
        name, model, tenant = ("rag", "large", "default") if is_rag else ("chat", "small", "shop")
        sent_s = at_s + float(random.exponential(lag_s))
        one = Record(number, name, name, model, tenant, number, 0, at_s, sent_s)
        if random.random() < failing:
            one.status, one.error, one.end_s = 503, "http", sent_s + 0.01
        else:
            one.status = 200
            one.first_s = sent_s + slow * float(random.lognormal(np.log(0.15), 0.4))
            one.gaps_ms = (slow * random.gamma(4, 5, gaps)).round(3).tolist()
            one.end_s = one.first_s + sum(one.gaps_ms) / 1000
            one.prompt_tokens, one.output_tokens, one.cached_tokens = 64, gaps + 1, 16
        found.append(one)
    return found


def make_lag(seconds: int = 32, p99_ms: float = 1.0) -> Rows:
    return [
        {
            "t_s": second + 1.0,
            "worker": 0,
            "lag_p50_ms": 0.1,
            "lag_p99_ms": p99_ms,
            "lag_max_ms": 2 * p99_ms,
            "cpu_share": 0.4,
        }
        for second in range(seconds)
    ]


def one_record(at_s: float, took_s: float = 0.5, **changes: Any) -> Record:
    values: dict[str, Any] = {
        "status": 200,
        "first_s": at_s + took_s / 2,
        "end_s": at_s + took_s,
        "output_tokens": 3,
        "gaps_ms": [10.0, 20.0],
    }
    conversation = round(at_s * 10)
    return Record(
        **{
            "number": conversation,
            "class_name": "chat",
            "kind": "chat",
            "model": "small",
            "tenant": "shop",
            "conversation": conversation,
            "intended_s": at_s,
            "sent_s": at_s,
        }
        | values
        | changes
    )


# ---- figures -----------------------------------------------------------------------------------------


def test_the_figures_of_a_small_run_are_these() -> None:
    scenario = make_scenario(duration_s=11, warmup_s=1, arrivals={"kind": "closed"})
    records = [one_record(second + 0.5) for second in range(10)]
    records[4] = one_record(4.5, error="timeout", status=0, first_s=None)
    found = summarise(scenario, records, [], [])
    # The first was sent in the warm-up, and counts nowhere: its answer came in it too.
    assert (found["requests"], found["ok"], found["errors"]) == (9, 8, {"timeout": 1})
    assert found["duration_s"] == 10
    # One more was completed as the counted time began.
    assert found["rate_per_s"] == pytest.approx(0.9)
    assert found["offered_per_s"] == pytest.approx(0.9)
    assert found["goodput_share"] == pytest.approx(8 / 9)
    assert found["output_tokens"] == 24
    latency = found["latency"]
    assert latency["ttft_ms"]["p95"] == pytest.approx(250)
    assert latency["e2e_ms"]["mean"] == pytest.approx(500)
    assert latency["itl_ms"]["p50"] == pytest.approx(15)
    assert latency["tpot_ms"]["max"] == pytest.approx(15)
    assert found["littles_law"]["in_flight"] == pytest.approx(0.45)
    assert found["littles_law"]["off_by_share"] == pytest.approx(0)


def test_broken_answers_and_what_was_not_as_asked_are_counted_by_themselves() -> None:
    scenario = make_scenario(duration_s=11, warmup_s=0, arrivals={"kind": "closed"})
    found = summarise(
        scenario,
        [
            one_record(1.5, prompt_tokens=9),
            one_record(2.5, prompt_tokens=9, error="truncated"),
            one_record(3.5, error="http", status=500),
            one_record(4.5, prompt_tokens=-1, output_tokens=-1, asked_output=30),
            one_record(5.5, prompt_tokens=9, asked_output=30),
            one_record(6.5, prompt_tokens=9, asked_output=3),
        ],
        [],
        [],
    )
    assert (found["ok"], found["broken"]) == (4, 1)
    assert (found["without_usage"], found["ended_early"]) == (1, 1)
    assert [one["broken"] for one in found["groups"]] == [1, 0]


def test_requests_of_the_warm_up_count_for_no_share_and_no_latency() -> None:
    scenario = make_scenario(duration_s=20, warmup_s=10, arrivals={"kind": "closed"})
    slow = [one_record(second + 0.1, 0.8) for second in range(9)]
    fast = [one_record(10 + second, 0.2) for second in range(10)]
    failed = [one_record(1.7, error="reset", status=0)]
    found = summarise(scenario, slow + failed + fast, [], [])
    assert found["requests"] == found["ok"] == 10
    assert found["errors"] == {}
    assert found["latency"]["e2e_ms"]["max"] == pytest.approx(200)


def test_a_queue_that_is_answered_after_the_end_is_not_throughput() -> None:
    scenario = make_scenario(duration_s=10, warmup_s=0)
    # Ten each second are asked, five each second are answered.
    records = [one_record(n / 10, (n + 1) / 5 - n / 10) for n in range(100)]
    found = summarise(scenario, records, [], [])
    assert found["offered_per_s"] == pytest.approx(10)
    assert found["rate_per_s"] == pytest.approx(5, abs=0.2)
    assert found["good_per_s"] <= found["rate_per_s"]
    assert found["output_tokens_per_s"] == pytest.approx(15, rel=0.15)


def test_a_failure_is_never_good() -> None:
    scenario = make_scenario(classes=[{"name": "chat", "model": "small"}], warmup_s=0)
    records = [one_record(1, tenant="default"), one_record(2, tenant="default", status=500)]
    found = summarise(scenario, records, [], [])
    assert found["goodput_share"] == 0.5
    assert found["statuses"] == {"500": 1}
    # Without a word in the record there is still one in the summary.
    assert found["errors"] == {"unknown": 1}


def test_promises_count_from_the_intended_send() -> None:
    late = one_record(6.0, sent_s=6.3, first_s=6.5)
    assert late.ttft_s == pytest.approx(0.2)
    found = summarise(make_scenario(), [late], [], [])
    assert found["goodput_share"] == 0
    assert found["latency"]["ttft_ms"]["p50"] == pytest.approx(200)
    assert found["latency"]["ttft_intended_ms"]["p50"] == pytest.approx(500)


def test_groups_have_their_own_figures_and_add_up() -> None:
    found = summarise(make_scenario(), make_records(), make_lag(), [])
    names = [(one["class"], one["model"], one["tenant"]) for one in found["groups"]]
    assert names == [("chat", "small", "shop"), ("rag", "large", "default")]
    for key in ("requests", "ok", "output_tokens", "rate_per_s", "output_tokens_per_s", "good"):
        assert sum(one[key] for one in found["groups"]) == pytest.approx(found[key]), key
    assert found["groups"][1]["slo"] == {"e2e_ms": 3000, "target": 0.9}
    assert all(one["wilson_low"] < one["attainment"] for one in found["groups"])


def test_a_class_that_was_never_asked_is_listed() -> None:
    found = summarise(make_scenario(), [one_record(6)], [], [])
    unasked = found["groups"][1]
    assert (unasked["class"], unasked["requests"], unasked["attainment"]) == ("rag", 0, 0)
    assert unasked["latency"]["ttft_ms"] is None


def test_tokens_that_were_not_counted_by_the_server_are_not_invented() -> None:
    found = summarise(make_scenario(), [one_record(6, output_tokens=-1)], [], [])
    assert (found["output_tokens"], found["cached_tokens"]) == (0, 0)
    assert found["latency"]["tpot_ms"] is None


slos = st.builds(
    SloConfig,
    ttft_ms=st.none() | st.floats(50, 500),
    itl_ms=st.none() | st.floats(15, 60),
    tpot_ms=st.none() | st.floats(15, 30),
    e2e_ms=st.none() | st.floats(200, 800),
)


@settings(max_examples=40, deadline=None)
@given(slos, slos, st.integers(0, 50), st.integers(0, 3))
def test_what_is_good_is_what_a_sweep_calls_good(
    chat: SloConfig, rag: SloConfig, seed: int, gaps: int
) -> None:
    records = make_records(seed, 40, gaps=gaps * 10)
    records[0].first_s = None
    by_class = {"chat": chat, "rag": rag}
    columns = Columns.of(records)
    groups = {group: by_class[group[0]] for group in columns.groups}
    expected = [is_good(one, by_class[one.class_name]) for one in records]
    assert columns.good(groups).tolist() == expected


def test_what_is_in_flight_is_what_a_sweep_says() -> None:
    records = make_records()
    found = summarise(make_scenario(), records, [], [])
    assert found["in_flight_mean"] == pytest.approx(in_flight(records, 5, 30))


# ---- columns -----------------------------------------------------------------------------------------


def test_columns_say_what_records_say() -> None:
    records = make_records(count=50)
    latencies = Columns.of(records).latencies()
    for name, wanted in (
        ("ttft_ms", [one.ttft_s for one in records]),
        ("ttft_intended_ms", [one.ttft_intended_s for one in records]),
        ("tpot_ms", [one.tpot_s for one in records]),
        ("e2e_ms", [one.e2e_s for one in records]),
        ("e2e_intended_ms", [one.e2e_intended_s for one in records]),
    ):
        expected = np.array([np.nan if one is None else one * 1000 for one in wanted])
        assert latencies[name] == pytest.approx(expected, nan_ok=True), name


def test_a_selection_keeps_each_requests_gaps() -> None:
    records = [one_record(1, gaps_ms=[1.0]), one_record(2, gaps_ms=[]), one_record(3)]
    chosen = Columns.of(records).where(np.array([False, True, True]))
    assert chosen.gap_counts.tolist() == [0, 2]
    assert chosen.gaps_ms.tolist() == [10, 20]


# ---- validity ----------------------------------------------------------------------------------------


def reasons(scenario: Scenario, records: list[Record], lag: Rows | None = None) -> list[str]:
    found = summarise(scenario, records, lag or [], [])
    assert found["valid"] is not bool(found["invalid_because"])
    return list(found["invalid_because"])


def test_a_generator_in_time_makes_a_valid_run() -> None:
    assert reasons(make_scenario(), make_records(), make_lag()) == []


def test_late_sends_make_a_run_invalid_and_name_the_limit() -> None:
    (reason,) = reasons(make_scenario(), make_records(lag_s=0.02))
    assert "p99 of the send lag is" in reason
    assert "validity.max_send_lag_p99_ms" in reason


def test_in_a_closed_loop_nothing_can_be_sent_late() -> None:
    closed = make_scenario(arrivals={"kind": "closed"})
    assert reasons(closed, make_records(lag_s=0.02)) == []


@pytest.mark.parametrize("kind", ["closed", "poisson"])
def test_a_busy_loop_makes_any_run_invalid(kind: str) -> None:
    scenario = make_scenario(arrivals={"kind": kind})
    (reason,) = reasons(scenario, make_records(), make_lag(p99_ms=40))
    assert "validity.max_loop_lag_p99_ms" in reason


def test_lag_in_the_warm_up_is_forgiven() -> None:
    lag = make_lag(p99_ms=40)[:4] + make_lag()[4:]
    assert reasons(make_scenario(), make_records(), lag) == []


def test_requests_of_the_plan_that_were_never_sent_are_counted() -> None:
    records = make_records()
    (reason,) = reasons(make_scenario(), records[:100] + records[110:])
    assert reason.startswith("10 of the plan's 600 requests were never sent")
    lenient = make_scenario(validity={"max_missing_share": 0.05})
    assert reasons(lenient, records[:100] + records[110:]) == []


def test_turns_that_wait_for_answers_are_not_missing() -> None:
    # Numbers of the plan are given to turns that a failed conversation never reaches.
    records = [one_record(6 + n, number=3 * n, conversation=n) for n in range(5)]
    assert reasons(make_scenario(), records) == []


def test_a_run_that_was_stopped_counts_to_its_end_and_says_so() -> None:
    records = [one for one in make_records() if one.intended_s < 15]
    found = summarise(make_scenario(), records, make_lag(15), [])
    assert found["duration_s"] == pytest.approx(10)
    assert found["invalid_because"] == [
        "the run was stopped after 15 s of 30 s: what was planned after that was never sent"
    ]
    assert found["offered_per_s"] == pytest.approx(20, rel=0.2)


def test_a_run_without_requests_is_invalid_and_still_a_summary() -> None:
    found = summarise(make_scenario(), [], [], [])
    assert found["invalid_because"] == ["no request was sent after the warm-up of 5 s"]
    assert found["latency"]["ttft_ms"] is None
    assert b"NaN" not in orjson.dumps(found)


def test_the_loops_lag_is_that_of_all_seconds_together() -> None:
    calm, stalled = make_lag(99), make_lag(1, p99_ms=500)
    found = loop_lag(calm + stalled)
    # One second in a hundred stalls: that is not all of the last hundredth, but nearly.
    assert found["p50"] == pytest.approx(0.1, abs=0.02)
    assert found["max"] == 1000
    assert 1 < (found["p99"] or 0) < 300
    assert loop_lag([]) == {"p50": None, "p99": None, "max": None}


# ---- size --------------------------------------------------------------------------------------------


def test_summaries_do_not_depend_on_the_order_of_records() -> None:
    records = make_records()
    shuffled = [records[place] for place in np.random.default_rng(3).permutation(len(records))]
    first, second = (summarise(make_scenario(), these, [], []) for these in (records, shuffled))
    for key in ("ok", "goodput_share", "rate_per_s", "errors", "valid"):
        assert first[key] == second[key], key
    for name, figures in first["latency"].items():
        assert second["latency"][name] == pytest.approx(figures), name


def test_ten_times_the_same_requests_have_the_same_figures() -> None:
    few = make_records(count=2000, gaps=20)
    once, often = (summarise(make_scenario(), some, [], []) for some in (few, few * 10))
    assert often["requests"] == 10 * once["requests"] > 15_000
    assert often["rate_per_s"] == pytest.approx(10 * once["rate_per_s"])
    assert often["goodput_share"] == pytest.approx(once["goodput_share"])
    for name, figures in once["latency"].items():
        assert often["latency"][name]["p50"] == pytest.approx(figures["p50"], rel=0.01), name
    assert slos_of(make_scenario())[("chat", "small", "shop")].ttft_ms == 400
