"""A plan, or the refusal of one, in a line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from serving.catalogue.catalogue import load_catalogue
from serving.engine_plan.advice import advice
from serving.engine_plan.hosted import describe
from serving.engine_plan.plan import EnginePlan
from serving.engine_plan.planner import make_plan
from serving.errors import ConfigError
from serving.settings import ModelConfig


def plan(entry: str, args: Mapping[str, Any] | None = None, **fields: Any) -> EnginePlan:
    fields = {"device": "gpu", "gpu": "h200", **fields}
    config = ModelConfig.from_args(
        {"id": "m", "catalogue": entry, "engine_args": dict(args or {}), **fields}
    )
    assert config.device != "auto"
    return make_plan(
        config, load_catalogue(), device=config.device, gpu=config.gpu, cache_dir=Path("cache")
    )


def refused(entry: str, args: Mapping[str, Any] | None = None, **fields: Any) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        plan(entry, args, **fields)
    return raised.value


def advised(entry: str, args: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, str]:
    """What is advised, by the first word that names a key; and how urgently."""
    fields = {"device": "gpu", "gpu": "h200", **fields}
    made = plan(entry, args, **fields)
    config = ModelConfig.from_args({"id": "m", "catalogue": entry, **fields})
    spec = load_catalogue().get(entry)
    one = describe(config, spec, made.engine_args, device="gpu", gpu=fields["gpu"])
    return {each.text: each.level for each in advice(one)}


def only(found: Mapping[str, str], word: str) -> tuple[str, str]:
    """The one piece of advice with this word, and its level."""
    texts = [text for text in found if word in text]
    assert len(texts) == 1, found
    return texts[0], found[texts[0]]
