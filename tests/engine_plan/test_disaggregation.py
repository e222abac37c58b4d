"""Prefill and decode apart: what each kind of engine is told, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serving.app import deployment_options
from serving.catalogue.catalogue import load_catalogue
from serving.engine_plan import disaggregation
from serving.engine_plan.plan import EnginePlan
from serving.engine_plan.planner import make_plans
from serving.errors import ConfigError
from serving.replica_protocol import MODEL_DEPLOYMENT, PREFILL_DEPLOYMENT
from serving.settings import ModelConfig


def configured(prefill: Any = None, **fields: Any) -> ModelConfig:
    entry = {"id": "m", "catalogue": "deepseek-r1-0528", "device": "gpu", "gpu": "h200"}
    return ModelConfig.from_args(entry | fields | {"prefill": {} if prefill is None else prefill})


def plans(config: ModelConfig) -> list[EnginePlan]:
    return make_plans(
        config, load_catalogue(), device="gpu", gpu=config.gpu, cache_dir=Path("cache")
    )


def refused(**fields: Any) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        plans(configured(**fields))
    return raised.value


def test_a_model_with_prefill_replicas_has_two_plans() -> None:
    decode, prefill = plans(configured())
    transfers = [one.engine_args["kv_transfer_config"] for one in (decode, prefill)]
    assert [one["kv_role"] for one in transfers] == ["kv_consumer", "kv_producer"]
    for one in transfers:
        assert one["kv_connector"] == "NixlConnector"
        # vLLM's default fails the request.
        assert one["kv_load_failure_policy"] == "recompute"
    assert decode.card.prefill_min_tokens == 2048


def test_a_model_without_has_one_and_no_connector() -> None:
    config = ModelConfig.from_args({"id": "m", "catalogue": "deepseek-r1-0528", "device": "gpu"})
    (only,) = make_plans(
        config, load_catalogue(), device="gpu", gpu="h200", cache_dir=Path("cache")
    )
    assert (only.role, only.card.prefill_min_tokens) == ("whole", None)
    assert "kv_transfer_config" not in only.engine_args


def test_what_prefill_says_of_the_engine_wins_there_and_only_there() -> None:
    decode, prefill = plans(
        configured(
            {"engine_args": {"max_num_batched_tokens": 16384}, "nixl": {"num_threads": 2}},
            engine_args={"max_num_batched_tokens": 2048, "max_model_len": 4096},
        )
    )
    assert decode.engine_args["max_num_batched_tokens"] == 2048
    assert prefill.engine_args["max_num_batched_tokens"] == 16384
    for one in (decode, prefill):
        assert one.engine_args["max_model_len"] == 4096
        extra = one.engine_args["kv_transfer_config"]["kv_connector_extra_config"]
        assert extra == {"num_threads": 2}


def test_each_kind_is_a_deployment_of_its_own_with_its_own_replicas() -> None:
    config = configured({"replicas": {"min": 1, "max": 3}}, replicas={"min": 2, "max": 2})
    decode, prefill = (deployment_options(config, one) for one in plans(config))
    assert (decode["name"], decode["num_replicas"]) == (MODEL_DEPLOYMENT, 2)
    assert (prefill["name"], prefill["autoscaling_config"].max_replicas) == (PREFILL_DEPLOYMENT, 3)


def test_kinds_of_one_file_can_read_each_others_caches_and_those_of_a_changed_one_cannot() -> None:
    builds = {one.build for one in plans(configured())}
    assert len(builds) == 1
    assert "" not in builds
    for changed in (
        {"revision": "main"},
        {"engine_args": {"hf_overrides": {"rope_theta": 1.0}}},
        {"source": "/models/other"},
    ):
        assert {one.build for one in plans(configured(**changed))}.isdisjoint(builds)
    # More replicas, or other names, are no other weights.
    for same in ({"replicas": {"min": 2, "max": 4}}, {"aliases": ["r1"]}):
        assert {one.build for one in plans(configured(**same))} == builds


def test_caches_of_other_numbers_are_refused() -> None:
    error = refused(prefill={"engine_args": {"kv_cache_dtype": "fp8"}})
    assert error.param == "prefill.engine_args.kv_cache_dtype"
    with pytest.raises(ConfigError, match="would load b"):
        disaggregation.check_pair(["a", "b"], [{}, {}])


@pytest.mark.parametrize("key", ["kv_transfer_config", "kv_offloading_size"])
def test_an_engine_has_one_connector(key: str) -> None:
    assert refused(engine_args={key: {}}).param == f"engine_args.{key}"
    assert refused(prefill={"engine_args": {key: {}}}).param == f"prefill.engine_args.{key}"


@pytest.mark.parametrize(
    ("fields", "telling"),
    [
        ({"engine_args": {"data_parallel_size": 2, "enable_expert_parallel": True}}, "ranks"),
        ({"catalogue": "qwen3-embedding-0.6b"}, "decodes nothing"),
        ({"catalogue": "tiny-qwen3-embedding"}, "decodes nothing"),
    ],
)
def test_what_cannot_be_handed_over_is_refused(fields: dict[str, Any], telling: str) -> None:
    error = refused(**fields)
    assert error.param == "prefill"
    assert telling in error.message


@pytest.mark.parametrize(
    ("prefill", "fields", "telling"),
    [
        ({}, {"adapters": {"tuned": "/models/tuned"}}, "not with `adapters`"),
        ({"replicas": {"min": 0}}, {}, "must be 1 or more"),
        ({"engine_args": {"trust_remote_code": True}}, {}, "never run"),
        ({"min_tokens": 1}, {}, "min_prompt_tokens"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_before_anything_is_planned(
    prefill: dict[str, Any], fields: dict[str, Any], telling: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        configured(prefill, **fields)
    assert telling in raised.value.message
