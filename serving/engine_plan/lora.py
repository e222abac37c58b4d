"""LoRA adapters: their engine arguments, and the checks of their files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.errors import ConfigError

# vLLM reserves memory on the GPU for so many at a time; more take turns.
MOST_AT_ONCE = 8
# What vLLM takes as `max_lora_rank`, and its default.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
DEFAULT_RANK = 16


def arguments(adapters: Mapping[str, str]) -> dict[str, Any]:
    """Engine arguments for adapters that are loaded when the engine starts and have names of their own."""
    if not adapters:
        return {}
    modules = [{"name": name, "path": path} for name, path in adapters.items()]
    at_once = min(len(modules), MOST_AT_ONCE)
    return {"enable_lora": True, "max_loras": at_once, "lora_modules": modules}


def check_arguments(args: Mapping[str, Any]) -> None:
    """Refuse arguments that contradict the adapters.

    Raises:
        ConfigError: `param` is the key.
    """
    if args.get("lora_modules") and not args.get("enable_lora"):
        raise ConfigError(
            "engine_args.enable_lora: must not be false where `adapters` are named",
            param="engine_args.enable_lora",
        )
    at_once, in_memory = args.get("max_loras", 1), args.get("max_cpu_loras")
    if in_memory is not None and in_memory < at_once:
        raise ConfigError(
            f"engine_args.max_cpu_loras: {in_memory} is fewer than max_loras, {at_once}; raise it or take "
            "it out",
            param="engine_args.max_cpu_loras",
        )
    rank = args.get("max_lora_rank", DEFAULT_RANK)
    if rank not in RANKS:
        raise ConfigError(
            f"engine_args.max_lora_rank: {rank!r} is not possible; vLLM takes "
            f"{', '.join(str(each) for each in RANKS)}",
            param="engine_args.max_lora_rank",
        )


def check_files(args: Mapping[str, Any], *, only_present: bool = False) -> None:
    """Refuse adapters whose files are missing on this node, pickled, or larger than the engine's room.

    Args:
        only_present: skip folders that are not on this machine, which need not be a node.

    Raises:
        ConfigError: the message names the adapter and the remedy.
    """
    for adapter in args.get("lora_modules", ()):
        name, folder = adapter["name"], Path(adapter["path"])
        if only_present and not folder.is_dir():
            continue
        # vLLM would otherwise fall back to a pickled file.
        if not (folder / "adapter_model.safetensors").is_file():
            raise ConfigError(
                f"adapters: {name}: no adapter_model.safetensors in {folder} on this node",
                param="adapters",
            )
        rank, most = _rank(folder), args.get("max_lora_rank", DEFAULT_RANK)
        if rank is not None and rank > most:
            room = next((each for each in RANKS if each >= rank), None)
            fix = f"set engine_args.max_lora_rank: {room}" if room else "vLLM takes 512 at most"
            raise ConfigError(
                f"adapters: {name}: has rank {rank}, and the engine room for {most}; {fix}",
                param="engine_args.max_lora_rank",
            )


def _rank(folder: Path) -> int | None:
    try:
        facts = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    rank = facts.get("r") if isinstance(facts, dict) else None
    return rank if isinstance(rank, int) else None
