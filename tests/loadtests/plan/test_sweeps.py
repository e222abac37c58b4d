"""What is read from a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from loadtests.plan.sweeps import crossing, read_sweep
from serving.errors import ConfigError
from tests.loadtests.plan.helpers import document, measured, point


def test_the_likely_rate_is_where_the_share_crosses_the_target() -> None:
    runs = [point(8, 0.99), point(10, 0.96), point(12, 0.90), point(14, 0.5)]
    found = crossing(runs, 0.95)
    assert found is not None
    # A sixth of the way, in logarithms.
    assert found == pytest.approx(10 * 1.2 ** (1 / 6))


def test_runs_that_contradict_each_other_are_averaged() -> None:
    lucky = [point(8, 1.0), point(10, 0.91), point(10.5, 0.97), point(12, 0.5)]
    found = crossing(lucky, 0.95)
    # At 10 and 10.5 together 0.94 were good: both are beyond.
    assert found is not None
    assert 8 < found < 10


def test_a_long_run_of_good_shares_does_not_pull_the_rate_down() -> None:
    runs = [point(rate, 1.0) for rate in (1, 2, 4, 8)] + [point(8.4, 0.9)]
    found = crossing(runs, 0.95)
    assert found is not None
    assert 8 < found < 8.4


def test_a_growing_backlog_ends_it_and_an_invalid_run_says_nothing() -> None:
    assert crossing([point(8, 1.0), point(9, 0.2, valid=False)], 0.95) is None
    found = crossing([point(8, 1.0), point(9, 1.0, backlog_grows=True)], 0.95)
    assert found is not None
    assert 8 < found < 9


def test_without_a_rate_that_failed_nothing_is_known_above() -> None:
    found = measured(rate_fails_per_s=None)
    assert (found.held_per_s, found.likely_per_s, found.failed_per_s) == (10, 10, None)


def test_a_sweep_on_cpus_has_no_gpu() -> None:
    found = measured(hardware={"gpu": None, "gpus_per_replica": 0, "replicas": 2})
    assert (found.gpu, found.gpus_per_replica, found.replicas) == ("cpu", 1, 2)


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"confirmed": False, "rate_per_s": 0.0}, "confirmed no rate"),
        ({"comptoir_sweep": 2}, "is not a sweep"),
        ({"input_tokens_mean": 0}, "input_tokens_mean: must be a number above 0"),
        ({"slo": {"ttft": 5}}, "slo: ttft: unknown key"),
        ({"points": []}, "points: none of them held"),
    ],
)
def test_what_cannot_be_planned_with_is_refused(
    tmp_path: Path, update: dict[str, Any], said: str
) -> None:
    file = tmp_path / "sweep.json"
    file.write_bytes(orjson.dumps(document() | update))
    with pytest.raises(ConfigError, match=said):
        read_sweep(file)


def test_a_folder_stands_for_its_sweep(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_bytes(orjson.dumps(document(7)))
    assert read_sweep(tmp_path).held_per_s == 7
    with pytest.raises(ConfigError, match="No such file"):
        read_sweep(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        read_sweep(tmp_path / "bad.json")
