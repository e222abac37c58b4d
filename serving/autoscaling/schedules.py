"""Schedules: the lowest number of replicas that they demand at a moment. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from serving.config.autoscaling import Schedule


def scheduled_minimum(schedules: Iterable[Schedule], now_s: float) -> int:
    """Replicas that must run.

    Args:
        now_s: seconds since 1970, UTC; each schedule reads it on the clock of its own time zone, so that
            hours stay where they are when daylight saving begins or ends.
    """
    return max((schedule.min for schedule in schedules if is_active(schedule, now_s)), default=0)


def is_active(schedule: Schedule, now_s: float) -> bool:
    """Whether the moment is within its hours, which may have begun the day before."""
    local = datetime.fromtimestamp(now_s, schedule.zone)
    minute = local.hour * 60 + local.minute
    today, yesterday = local.weekday(), (local.weekday() - 1) % 7
    began, ends = schedule.from_minute, schedule.to_minute
    if began < ends:
        return today in schedule.weekdays and began <= minute < ends
    return (today in schedule.weekdays and minute >= began) or (
        yesterday in schedule.weekdays and minute < ends
    )
