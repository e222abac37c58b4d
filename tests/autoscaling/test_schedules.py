"""Office hours, on the clock of their time zone."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from serving.autoscaling.schedules import is_active, scheduled_minimum
from serving.config.autoscaling import Schedule

BERLIN = "Europe/Berlin"


def schedule(**keys: object) -> Schedule:
    return Schedule.model_validate({"min": 2, "timezone": BERLIN} | keys)


def at(text: str, fold: int = 0, zone: str = BERLIN) -> float:
    """Seconds since 1970 of a moment on the clock there."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


OFFICE = schedule(days="mon-fri", **{"from": "08:00", "to": "18:00"})


@pytest.mark.parametrize(
    ("moment", "active"),
    [
        ("2026-01-05 07:59:59", False),
        ("2026-01-05 08:00", True),
        ("2026-01-09 17:59:59", True),
        ("2026-01-09 18:00", False),
        ("2026-01-10 12:00", False),
    ],
)
def test_office_hours_are_on_working_days(moment: str, active: bool) -> None:
    assert is_active(OFFICE, at(moment)) is active


@pytest.mark.parametrize("day", ["2026-03-27", "2026-03-30", "2026-10-23", "2026-10-26"])
def test_hours_stay_on_the_local_clock_when_daylight_saving_begins_or_ends(day: str) -> None:
    assert not is_active(OFFICE, at(f"{day} 07:59"))
    assert is_active(OFFICE, at(f"{day} 08:00"))
    assert is_active(OFFICE, at(f"{day} 17:59"))
    assert not is_active(OFFICE, at(f"{day} 18:00"))


def test_an_hour_that_the_clock_leaves_out_is_left_out() -> None:
    night = schedule(**{"from": "02:00", "to": "03:00"})
    # 29 March 2026: after 01:59:59 comes 03:00:00.
    assert not is_active(night, at("2026-03-29 01:59:59"))
    assert not is_active(night, at("2026-03-29 01:59:59") + 1)
    assert is_active(night, at("2026-03-30 02:30"))


def test_an_hour_that_the_clock_shows_twice_counts_twice() -> None:
    night = schedule(**{"from": "02:00", "to": "03:00"})
    first, second = at("2026-10-25 02:30"), at("2026-10-25 02:30", fold=1)
    assert second - first == 3600
    assert is_active(night, first)
    assert is_active(night, second)


def test_hours_over_midnight_belong_to_the_day_on_which_they_begin() -> None:
    night = schedule(days="fri", **{"from": "22:00", "to": "06:00"})
    assert not is_active(night, at("2026-01-09 05:00"))
    assert is_active(night, at("2026-01-09 22:00"))
    assert is_active(night, at("2026-01-10 05:59"))
    assert not is_active(night, at("2026-01-10 06:00"))
    assert not is_active(night, at("2026-01-10 22:00"))


def test_a_day_ends_at_midnight() -> None:
    sunday = schedule(days="sun")
    assert is_active(sunday, at("2026-01-11 00:00"))
    assert is_active(sunday, at("2026-01-11 23:59:59"))
    assert not is_active(sunday, at("2026-01-12 00:00"))


def test_of_several_schedules_the_largest_minimum_counts() -> None:
    lunch = schedule(min=4, **{"from": "11:00", "to": "14:00"})
    assert scheduled_minimum([OFFICE, lunch], at("2026-01-05 12:00")) == 4
    assert scheduled_minimum([OFFICE, lunch], at("2026-01-05 15:00")) == 2
    assert scheduled_minimum([OFFICE, lunch], at("2026-01-05 20:00")) == 0
    assert scheduled_minimum([], 0.0) == 0


def test_each_schedule_has_its_own_clock() -> None:
    tokyo = schedule(timezone="Asia/Tokyo", **{"from": "08:00", "to": "18:00"})
    assert is_active(tokyo, at("2026-01-05 01:00"))
    assert not is_active(OFFICE, at("2026-01-05 01:00"))
