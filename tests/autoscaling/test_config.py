"""The `replicas` key of a model: what it accepts, and how it says what is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from serving.autoscaling.policy import Reason
from serving.config.autoscaling import AutoscalingConfig, Schedule
from serving.errors import ConfigError
from serving.settings import ModelConfig

DOCUMENT = (Path(__file__).parents[2] / "docs" / "autoscaling.md").read_text(encoding="utf-8")


def build(**replicas: Any) -> AutoscalingConfig:
    return ModelConfig.from_args({"id": "m", "replicas": replicas}).replicas


def test_a_schedule_is_written_as_yaml_people_write_it() -> None:
    text = """
    max: 4
    schedules:
      - {days: mon-fri, from: "08:00", to: "18:00", timezone: Europe/Berlin, min: 2}
      - {days: "sat,sun", from: 10:30, to: 18:00, min: 1}
    """
    first, second = build(**yaml.safe_load(text)).schedules
    assert (first.from_, first.to, first.weekdays) == ("08:00", "18:00", frozenset(range(5)))
    # YAML reads 10:30 as 630, in base 60.
    assert (second.from_, second.to, second.weekdays) == ("10:30", "18:00", frozenset({5, 6}))


def test_an_unknown_key_of_a_schedule_is_answered_with_those_that_may_be_written() -> None:
    with pytest.raises(ConfigError, match=r"since: unknown key; known: days, from, to,"):
        build(schedules=[{"since": "08:00", "min": 1}])


@pytest.mark.parametrize(
    ("days", "numbers"),
    [("mon-sun", range(7)), ("fri-mon", (4, 5, 6, 0)), ("Tue", (1,)), ("mon, wed-thu", (0, 2, 3))],
)
def test_days_are_single_ones_and_ranges(days: str, numbers: Any) -> None:
    assert Schedule(days=days, min=1).weekdays == frozenset(numbers)


@pytest.mark.parametrize(
    ("wrong", "key", "says"),
    [
        ({"min": 3, "max": 2}, "replicas", "min (3) is larger than max (2)"),
        ({"max": 2, "spare": 2}, "replicas", "spare (2)"),
        ({"cold_start_s": -1}, "replicas.cold_start_s", "at least 0"),
        ({"max_step_up": 0}, "replicas.max_step_up", "at least 1"),
        ({"ttft_objective_s": 0}, "replicas.ttft_objective_s", "above 0"),
        ({"itl_objective_s": "fast"}, "replicas.itl_objective_s", "number"),
        ({"schedules": [{"min": 9}]}, "replicas", "schedules.0.min (9) is larger than max (1)"),
        ({"schedules": [{"from": "08:00"}]}, "replicas.schedules.0.min", "required"),
        ({"schedules": [{"min": 1, "from": "8 am"}]}, "replicas.schedules.0.from", "'08:00'"),
        ({"schedules": [{"min": 1, "to": "24:01"}]}, "replicas.schedules.0.to", "time of day"),
        ({"schedules": [{"min": 1, "to": 1441}]}, "replicas.schedules.0.to", "must be text"),
        ({"schedules": [{"min": 1, "days": "mo-fr"}]}, "replicas.schedules.0.days", "mon-fri"),
        (
            {"schedules": [{"min": 1, "timezone": "Europe/Berlinn"}]},
            "replicas.schedules.0.timezone",
            "Europe/Berlin",
        ),
        ({"schedules": [{"min": 1, "timezone": "Europe"}]}, "replicas.schedules.0.timezone", "UTC"),
        ({"schedules": [{"min": 1, "start": "8"}]}, "replicas.schedules.0.start", "unknown key"),
    ],
)
def test_what_does_not_fit_is_named(wrong: dict[str, Any], key: str, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build(**wrong)
    assert raised.value.param == key
    assert says in raised.value.message


def test_a_config_survives_the_way_through_json() -> None:
    config = build(max=4, schedules=[{"from": "08:00", "to": "18:00", "min": 2}])
    assert AutoscalingConfig.model_validate(config.model_dump(mode="json")) == config


def test_the_documents_example_is_accepted() -> None:
    (block,) = re.findall(r"^```yaml\n(.+?)^```", DOCUMENT, re.M | re.S)
    config = ModelConfig.from_args(yaml.safe_load(block)["args"]).replicas
    assert (config.spare, config.schedules[0].min) == (1, 3)


def test_the_document_explains_every_reason_and_every_key() -> None:
    section = DOCUMENT.partition("| reason |")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.M)) == set(get_args(Reason))
    keys = DOCUMENT.partition("## Keys")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(\w+)`", keys)) >= set(AutoscalingConfig.model_fields)
    rows = DOCUMENT.partition("## Schedules")[2].partition("\n## ")[0]
    names = {field.alias or name for name, field in Schedule.model_fields.items()}
    assert set(re.findall(r"^\| `(\w+)` \|", rows, re.M)) == names
