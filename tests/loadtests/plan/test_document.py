"""docs/capacity-planning.md says what a plan file may hold: every key, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from loadtests.plan.model import HostedConfig, PlanConfig, SiteConfig, TrafficConfig

TEXT = (Path(__file__).parents[3] / "docs" / "capacity-planning.md").read_text(encoding="utf-8")


def keys_of(head: str) -> set[str]:
    """What the first column of the table with this head names."""
    _, _, rest = TEXT.partition(f"| {head} | default |")
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}


@pytest.mark.parametrize(
    ("head", "model"),
    [
        ("key", PlanConfig),
        ("`traffic`", TrafficConfig),
        ("`models.NAME`", HostedConfig),
        ("`site`", SiteConfig),
    ],
)
def test_every_key_is_documented_and_no_other(head: str, model: type[BaseModel]) -> None:
    assert keys_of(head) == {*model.model_fields}


def test_the_documents_plan_is_accepted() -> None:
    (block,) = re.findall(r"^```yaml\n(.+?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert PlanConfig.model_validate(yaml.safe_load(block)).traffic[0].model == "qwen3-32b"
