from __future__ import annotations

import pytest

from loadtests.bench.compare.soak import Process, SoakPlan, Watch, worst

ENGINE, RAYLET = Process(1, "engine", "VLLM::EngineCore"), Process(2, "other ray", "raylet")


def looks(*mib: float) -> list[tuple[float, float]]:
    return [(10.0 * number, value) for number, value in enumerate(mib)]


def test_growth_is_from_the_first_minute_to_the_end() -> None:
    # 0 to 5: before the first minute; 6 to 9: its window; 10 to 13: the last half minute.
    watch = Watch({ENGINE: looks(1, 2, 3, 4, 5, 6, 100, 100, 101, 100, 104, 105, 106, 105)})
    growth = watch.growth(first_s=60)
    assert growth[ENGINE] == (100, 105)
    assert worst(growth) == {"growth_percent": pytest.approx(5.0)}


def test_a_process_that_did_not_last_is_not_judged() -> None:
    gone = Process(3, "replica", "ray::ServeReplica:qwen3:ModelReplica")
    watch = Watch({ENGINE: looks(*[100] * 20), gone: looks(*[50] * 9)})
    assert set(watch.growth(first_s=60)) == {ENGINE}


def test_rays_own_processes_are_not_held_against_us() -> None:
    watch = Watch({ENGINE: looks(*[100] * 20), RAYLET: looks(*range(100, 120))})
    assert worst(watch.growth(first_s=60)) == {"growth_percent": 0}


def test_nothing_watched_is_nothing_measured() -> None:
    assert worst(Watch().growth(first_s=60)) == {}


def test_a_short_soak_looks_sooner() -> None:
    assert SoakPlan(minutes=10, streams=64).first_look_s == 60
    assert SoakPlan(minutes=2, streams=64).first_look_s == 30
