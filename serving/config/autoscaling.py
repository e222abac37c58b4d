"""Configuration of autoscaling: the bounds on a model's replicas, and what determines their number."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from serving.config.base import FrozenConfig

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)|24:00")


def _clock(value: Any) -> Any:
    # YAML 1.1 reads an unquoted 18:00 as a number in base 60, which is minutes.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 24 * 60:
        return f"{value // 60:02}:{value % 60:02}"
    if isinstance(value, str) and not _CLOCK.fullmatch(value):
        raise ValueError(f"{value!r} is not a time of day: write it as '08:00', '24:00' at most")
    return value


TimeOfDay = Annotated[str, BeforeValidator(_clock)]


class Schedule(FrozenConfig):
    """Hours in which a model has at least `min` replicas; over midnight where `to` is not after `from`."""

    model_config = ConfigDict(serialize_by_alias=True)

    days: str = "mon-sun"
    from_: TimeOfDay = Field(default="00:00", alias="from")
    to: TimeOfDay = "24:00"
    timezone: str = "UTC"
    min: int = Field(ge=0, le=1024)

    @field_validator("days")
    @classmethod
    def _are_days(cls, value: str) -> str:
        _weekdays(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _is_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        # The last two: names that are no names, and folders of the time zone database.
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(
                f"{value!r} is not a time zone: use a name such as 'Europe/Berlin' or 'UTC'"
            ) from None
        return value

    @cached_property
    def weekdays(self) -> frozenset[int]:
        """Days on which it begins; Monday is 0."""
        return _weekdays(self.days)

    @property
    def from_minute(self) -> int:
        """Minute of the day at which it begins."""
        return _minute(self.from_)

    @property
    def to_minute(self) -> int:
        """Minute of the day, or of the next one, before which it ends."""
        return _minute(self.to)

    @cached_property
    def zone(self) -> ZoneInfo:
        """The time zone of its hours."""
        return ZoneInfo(self.timezone)


class AutoscalingConfig(FrozenConfig):
    """The bounds on a model's replicas, and what determines their number between `min` and `max`."""

    min: int = Field(default=1, ge=0, le=1024)
    max: int = Field(default=1, ge=1, le=1024)
    target_requests: float = Field(default=32.0, gt=0)
    hold_s: float = Field(default=300.0, ge=0)
    ttft_objective_s: float = Field(default=2.0, gt=0)
    itl_objective_s: float | None = Field(default=None, gt=0)
    cold_start_s: float | None = Field(default=None, ge=0, le=7200)
    max_step_up: int | None = Field(default=None, ge=1)
    max_step_down: int | None = Field(default=None, ge=1)
    spare: int = Field(default=0, ge=0, le=1024)
    # While `args` change: Serve rounds up, so that anything above 0 is at least one replica.
    surge_percent: int = Field(default=20, ge=0, le=100)
    schedules: tuple[Schedule, ...] = ()

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is larger than max ({self.max})")
        if self.spare >= self.max and self.spare:
            raise ValueError(f"spare ({self.spare}) leaves no replica to work: max is {self.max}")
        for index, schedule in enumerate(self.schedules):
            if schedule.min > self.max:
                raise ValueError(
                    f"schedules.{index}.min ({schedule.min}) is larger than max ({self.max})"
                )
        return self


def _weekdays(text: str) -> frozenset[int]:
    """The days of 'mon-fri', 'sat,sun' or 'fri-mon'.

    Raises:
        ValueError: a part is neither a day nor a range of days.
    """
    days: set[int] = set()
    for part in text.replace(" ", "").lower().split(","):
        ends = part.split("-")
        if len(ends) > 2 or not set(ends) <= set(WEEKDAYS):
            raise ValueError(
                f"{part!r} is no day: write 'mon-fri' or 'sat,sun' with {', '.join(WEEKDAYS)}"
            )
        first, last = WEEKDAYS.index(ends[0]), WEEKDAYS.index(ends[-1])
        days |= {(first + step) % 7 for step in range((last - first) % 7 + 1)}
    return frozenset(days)


def _minute(text: str) -> int:
    hour, minute = text.split(":")
    return int(hour) * 60 + int(minute)
