"""Prefill and decode in separate replicas: the arguments of each kind, and incompatible settings.

A prefill replica computes a prompt and keeps its KV cache until a replica of the model has fetched it,
through NIXL, from one engine's memory into the other's.
https://docs.vllm.ai/en/latest/features/nixl_connector_usage.html
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from serving.config.parallel import Parallelism
from serving.errors import ConfigError
from serving.settings import ModelConfig

# "whole": a replica of a model without prefill replicas. "decode": one that can fetch computed prompts.
Role = Literal["whole", "decode", "prefill"]
_VLLM_ROLES: Mapping[Role, str] = {"decode": "kv_consumer", "prefill": "kv_producer"}
# Connectors that move the cache of a request from one engine to another one.
_CONNECTORS = (
    "NixlConnector",
    "NixlPullConnector",
    "NixlPushConnector",
    "MoRIIOConnector",
    "P2pNcclConnector",
    "MooncakeConnector",
)
# What changes the numbers in a cache.
_SAME = ("dtype", "quantization", "kv_cache_dtype", "hf_overrides", "revision")
# Each asks vLLM for a connector, and an engine has one.
_OTHER_CACHES = ("kv_transfer_config", "kv_offloading_size", "kv_offloading_backend")


def roles(config: ModelConfig) -> tuple[Role, ...]:
    """The kinds of replicas of a model; its own first."""
    return ("whole",) if config.prefill is None else ("decode", "prefill")


def for_role(config: ModelConfig, role: Role) -> ModelConfig:
    """The configuration for replicas of this kind."""
    if role != "prefill" or config.prefill is None:
        return config
    return config.model_copy(
        update={
            "engine_args": config.engine_args | config.prefill.engine_args,
            "replicas": config.prefill.replicas,
        }
    )


def arguments(config: ModelConfig, role: Role) -> dict[str, Any]:
    """Engine arguments that make an engine one of this kind."""
    if config.prefill is None or role == "whole":
        return {}
    transfer: dict[str, Any] = {
        "kv_connector": "NixlConnector",
        "kv_role": _VLLM_ROLES[role],
        # What cannot be fetched is computed; by default the request would fail.
        "kv_load_failure_policy": "recompute",
    }
    if config.prefill.nixl:
        transfer["kv_connector_extra_config"] = dict(config.prefill.nixl)
    return {"kv_transfer_config": transfer}


def build_of(config: ModelConfig, source: str, revision: str | None) -> str:
    """A fingerprint of everything that computes a prompt; only engines with the same one hand over caches.

    While a changed file is rolled out, old replicas run beside new ones; NIXL compares shapes, not weights.

    Args:
        config: as in the file, for both kinds of replicas.
    """
    facts = {"id", "catalogue", "source", "revision", "layout", "gpu", "engine_args", "env"}
    own = config.model_dump_json(include=facts)
    prefill = config.prefill.model_dump_json(include={"engine_args"}) if config.prefill else ""
    return hashlib.sha256(f"{own} {prefill} {source} {revision}".encode()).hexdigest()[:16]


def check_pair(sources: Sequence[str], args: Sequence[Mapping[str, Any]]) -> None:
    """Refuse kinds of replicas that compute different caches: from other weights, or in another format.

    Raises:
        ConfigError: `param` is the key.
    """
    if len(set(sources)) > 1:
        raise ConfigError(
            f"prefill: its replicas would load {sources[1]}, and the model's own {sources[0]}; set `layout`, "
            "or leave out of prefill.engine_args what decides it",
            param="prefill.engine_args",
        )
    for key in _SAME:
        values = [one.get(key) for one in args]
        if any(value != values[0] for value in values):
            raise ConfigError(
                f"prefill.engine_args.{key}: must be as in the model's engine_args, {values[0]!r}: a cache "
                "is read as it was written",
                param=f"prefill.engine_args.{key}",
            )


def check(config: ModelConfig) -> None:
    """Refuse engine arguments in the file that set the hand-over or contradict it.

    Raises:
        ConfigError: `param` is the key.
    """
    if config.prefill is None:
        _refuse_by_hand(config.engine_args.get("kv_transfer_config"))
        return
    for where, args in (
        ("engine_args", config.engine_args),
        ("prefill.engine_args", config.prefill.engine_args),
    ):
        for key in _OTHER_CACHES:
            if key in args:
                raise ConfigError(
                    f"{where}.{key}: not with `prefill`, which sets the engine's one KV connector itself; "
                    "remove one of the two",
                    param=f"{where}.{key}",
                )


def check_plan(role: Role, task: str, parallel: Parallelism) -> None:
    """Refuse settings that a model with prefill replicas cannot have.

    Raises:
        ConfigError: `param` is the key.
    """
    if role == "whole":
        return
    if task not in ("chat", "guard"):
        raise ConfigError(
            f"prefill: the model's task is {task}: it decodes nothing, so there is nothing to hand over; "
            "remove `prefill`",
            param="prefill",
        )
    if parallel.data > 1:
        raise ConfigError(
            "prefill: not with data_parallel_size above 1: the ranks of a group stop and start together, "
            "and hand-overs between groups are not supported; use tensor_parallel_size",
            param="prefill",
        )


def _refuse_by_hand(transfer: Any) -> None:
    if not isinstance(transfer, Mapping):
        return
    inner = (transfer.get("kv_connector_extra_config") or {}).get("connectors") or ()
    names = [str(transfer.get("kv_connector"))]
    names += [str(one.get("kv_connector")) for one in inner if isinstance(one, Mapping)]
    if transfer.get("kv_role") in _VLLM_ROLES.values() or any(one in _CONNECTORS for one in names):
        raise ConfigError(
            "engine_args.kv_transfer_config: an engine that hands caches over needs a gateway that takes "
            "requests there: write `prefill` beside `engine_args`, which sets this for you; for caches "
            "beyond the GPU's memory set kv_offloading_size",
            param="engine_args.kv_transfer_config",
        )
