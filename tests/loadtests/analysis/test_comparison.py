from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import yaml

from loadtests.analysis.columns import Columns
from loadtests.analysis.comparison import Run, compare, compare_runs, differences, judge, workload
from loadtests.run.record import Record, write_records
from loadtests.workload.scenario import Scenario
from serving.errors import ConfigError
from tests.loadtests.analysis.test_summary import make_records, make_scenario

NAMES = ["throughput", "goodput"] + [
    f"{name} p{percent}" for name in ("TTFT", "ITL", "TPOT", "E2E") for percent in (50, 95, 99)
]


def leave(folder: Path, records: list[Record], scenario: Scenario | None = None) -> Path:
    """A run's folder."""
    folder.mkdir()
    document = (scenario or make_scenario()).model_dump(mode="json")
    (folder / "scenario.yaml").write_text(yaml.safe_dump(document))
    write_records(folder, records)
    return folder


def verdicts(result: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["verdict"] for one in result["figures"]}


def run_of(records: list[Record]) -> Run:
    return Run("run", make_scenario(), Columns.of(records), (5.0, 30.0))


# ---- verdicts ----------------------------------------------------------------------------------------


def test_two_runs_of_the_same_server_are_the_same(tmp_path: Path) -> None:
    before = leave(tmp_path / "before", make_records(1, 3000))
    after = leave(tmp_path / "after", make_records(2, 3000))
    result = compare(before, after, tolerance=0.1)
    assert list(verdicts(result)) == NAMES
    assert set(verdicts(result).values()) == {"same"}
    assert not result["worse"]
    for one in result["figures"]:
        assert one["low"] <= one["ratio"] <= one["high"], one


def test_a_slower_server_is_worse_and_the_other_way_round_better(tmp_path: Path) -> None:
    fast = leave(tmp_path / "fast", make_records(1, 1500))
    slow = leave(tmp_path / "slow", make_records(2, 1500, slow=1.5))
    result = compare(fast, slow)
    found = verdicts(result)
    assert result["worse"]
    assert {found[name] for name in NAMES[2:]} == {"worse"}
    assert found["throughput"] == "same"
    row = next(one for one in result["figures"] if one["name"] == "TPOT p50")
    assert row["ratio"] == pytest.approx(1.5, rel=0.05)
    assert 1.05 < row["low"] < row["high"] < 1.7
    assert row["is_sure"]
    back = compare(slow, fast)
    assert not back["worse"]
    assert verdicts(back)["E2E p50"] == "better"


def test_failures_lower_goodput(tmp_path: Path) -> None:
    good = leave(tmp_path / "good", make_records(1, 1500, failing=0))
    bad = leave(tmp_path / "bad", make_records(1, 1500, failing=0.4))
    found = verdicts(compare(good, bad))
    assert (found["goodput"], found["throughput"]) == ("worse", "worse")


def test_a_candidate_with_broken_answers_is_worse_however_few(tmp_path: Path) -> None:
    records = make_records(1, 1500, failing=0)
    good = leave(tmp_path / "good", records)
    broken = [replace(one, error="truncated") if one.number == 900 else one for one in records]
    bad = leave(tmp_path / "bad", broken)
    result = compare(good, bad)
    assert result["worse"]
    assert "worse" not in verdicts(result).values()
    assert "incomplete or malformed" in result["notes"][-1]
    assert not compare(bad, good)["worse"]
    assert not compare(bad, bad)["worse"]


def test_a_candidate_that_answers_nothing_is_worse(tmp_path: Path) -> None:
    good = leave(tmp_path / "good", make_records())
    dead = leave(tmp_path / "dead", make_records(failing=1))
    result = compare(good, dead)
    assert result["worse"]
    assert any("TTFT p50" in note and "that is worse" in note for note in result["notes"])
    # Scripts read it: every number is one.
    assert b"null" not in orjson.dumps(result)
    assert not compare(dead, good)["worse"]


def test_the_same_seed_gives_the_same_intervals(tmp_path: Path) -> None:
    before = leave(tmp_path / "before", make_records(1))
    after = leave(tmp_path / "after", make_records(2))
    assert compare(before, after, seed=5) == compare(before, after, seed=5)
    assert compare(before, after, seed=5) != compare(before, after, seed=6)


def test_a_burst_that_both_runs_had_does_not_hide_a_difference() -> None:
    def burst(seed: int, slow: float) -> Run:
        records = make_records(seed, 3000)
        for one in records:
            if one.first_s is not None:
                factor = slow * (6 if 10 < one.intended_s < 16 else 1)
                one.first_s = one.sent_s + factor * (one.first_s - one.sent_s)
                one.end_s = one.first_s + 0.2
        return run_of(records)

    random = np.random.default_rng(1)
    result = compare_runs(burst(1, 1.0), burst(2, 1.2), tolerance=0.05, random=random)
    assert verdicts(result)["TTFT p50"] == "worse"


def test_intervals_widen_when_neighbours_share_their_fate() -> None:
    def width(correlated: bool) -> float:
        random, records = np.random.default_rng(4), make_records(1, 2500, failing=0)
        factors = random.lognormal(0, 0.5, 25 if correlated else len(records))
        for place, one in enumerate(records):
            factor = factors[min(24, int(one.intended_s)) if correlated else place]
            one.first_s = one.sent_s + 0.2 * float(factor)
            one.end_s = one.first_s + 0.2
        run = run_of(records)
        found = compare_runs(run, run_of(make_records(2, 2500)), tolerance=0.05, random=random)
        row = next(one for one in found["figures"] if one["name"] == "TTFT p50")
        return float(row["high"] / row["low"])

    assert width(correlated=True) > 1.5 * width(correlated=False)


@pytest.mark.parametrize(
    ("ratio", "low", "high", "verdict", "is_sure"),
    [
        (1.20, 1.10, 1.30, "worse", True),
        (1.20, 1.01, 1.40, "worse", False),
        (1.20, 0.90, 1.50, "same", False),
        (1.03, 1.01, 1.04, "same", True),
        (0.80, 0.70, 0.90, "better", True),
        (0.80, 0.60, 1.10, "same", False),
    ],
)
def test_a_change_must_be_large_and_more_than_noise(
    ratio: float, low: float, high: float, verdict: str, is_sure: bool
) -> None:
    assert judge(ratio, low, high, 0.05, is_high_good=False) == (verdict, is_sure)
    opposite = {"worse": "better", "better": "worse", "same": "same"}[verdict]
    assert judge(ratio, low, high, 0.05, is_high_good=True) == (opposite, is_sure)


# ---- what may not be compared ------------------------------------------------------------------------


def test_runs_of_different_workloads_are_refused_naming_the_key(tmp_path: Path) -> None:
    classes = [{"name": "chat", "model": "small", "output_tokens": 64}]
    before = leave(tmp_path / "before", make_records(), make_scenario(classes=classes))
    classes = [{"name": "chat", "model": "small", "output_tokens": 128}]
    after = leave(tmp_path / "after", make_records(), make_scenario(classes=classes))
    with pytest.raises(ConfigError, match=r"classes\.chat\.output_tokens\.mean is 64\.0 .* 128\.0"):
        compare(before, after)
    forced = compare(before, after, force=True)
    assert any("classes.chat.output_tokens.mean" in note for note in forced["notes"])


def test_an_invalid_run_is_refused_with_its_reason(tmp_path: Path) -> None:
    good = leave(tmp_path / "good", make_records())
    late = leave(tmp_path / "late", make_records(lag_s=0.05))
    with pytest.raises(ConfigError, match=r"late is invalid: requests were sent late"):
        compare(good, late)
    assert compare(good, late, force=True)["notes"]


def test_where_load_goes_and_how_it_is_judged_may_differ() -> None:
    one = make_scenario(target={"url": "http://a"}, seed=1, description="before")
    other = make_scenario(target={"url": "http://b"}, seed=2, validity={"max_missing_share": 0.1})
    assert list(differences(workload(one), workload(other))) == []


def test_a_trace_is_the_same_in_another_folder() -> None:
    one = make_scenario(arrivals={"kind": "trace", "trace": "/a/day.jsonl"})
    other = make_scenario(arrivals={"kind": "trace", "trace": "/b/day.jsonl"})
    third = make_scenario(arrivals={"kind": "trace", "trace": "/b/night.jsonl"})
    assert list(differences(workload(one), workload(other))) == []
    ((key, *_),) = differences(workload(one), workload(third))
    assert key == "arrivals.trace"


def test_a_class_that_only_one_has_is_a_difference() -> None:
    one, other = make_scenario(), make_scenario(classes=[{"name": "chat", "model": "small"}])
    assert ("classes.rag", "there", "nothing") in list(differences(workload(one), workload(other)))


def test_a_folder_without_a_run_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        compare(tmp_path, tmp_path)


def test_a_negative_tolerance_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tolerance"):
        compare(tmp_path, tmp_path, tolerance=-0.1)
