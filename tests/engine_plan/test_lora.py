"""Adapters: arguments that contradict them, and files that do not fit."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from serving.engine import weights
from serving.errors import ConfigError
from tests.engine_plan.planned import plan, refused


def write_rank(folder: Path, rank: int) -> Path:
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"")
    (folder / "adapter_config.json").write_bytes(orjson.dumps({"r": rank}))
    return folder


def test_an_adapter_larger_than_there_is_room_for_is_refused_with_the_size(tmp_path: Path) -> None:
    adapters = {"tuned": str(write_rank(tmp_path / "a", 48))}
    made = plan("qwen3-8b", adapters=adapters)
    with pytest.raises(ConfigError, match="max_lora_rank: 64") as raised:
        weights.prepare(made)
    assert raised.value.param == "engine_args.max_lora_rank"
    weights.prepare(plan("qwen3-8b", {"max_lora_rank": 64}, adapters=adapters))


def test_adapters_cannot_be_switched_off_while_they_are_named() -> None:
    error = refused("qwen3-8b", {"enable_lora": False}, adapters={"a": "/a"})
    assert error.param == "engine_args.enable_lora"


def test_more_adapters_at_once_than_in_memory_are_refused() -> None:
    error = refused("qwen3-8b", {"max_cpu_loras": 1}, adapters={"a": "/a", "b": "/b"})
    assert error.param == "engine_args.max_cpu_loras"
