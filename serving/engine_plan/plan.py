"""EnginePlan: everything a replica needs to start its engine; `planner` makes it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from serving.config.parallel import Parallelism
from serving.engine_plan.disaggregation import Role
from serving.replica_facts import ModelCard


@dataclass(frozen=True)
class EnginePlan:
    """The plan of one replica, sent to it pickled."""

    model_id: str
    device: Literal["cpu", "gpu"]
    source: str
    engine_args: Mapping[str, Any]
    env: Mapping[str, str]
    card: ModelCard
    role: Role = "whole"
    # Equal in replicas that can hand a computed prompt over.
    build: str = ""
    accelerator_type: str | None = None
    num_cpus: float = 1.0
    # Of each GPU; tiny models share one.
    gpu_share: float = 1.0
    gpus_per_node: int = 8
    drain_timeout_s: float = 60.0
    watchdog_s: float = 120.0
    cache_dir: Path = field(default_factory=Path)

    @property
    def parallel(self) -> Parallelism:
        """How the model is spread."""
        return Parallelism.from_args(self.engine_args)

    @property
    def gpus(self) -> int:
        """GPUs of one replica, all its ranks together."""
        return 0 if self.device == "cpu" else self.parallel.gpus

    @property
    def placement_bundles(self) -> list[dict[str, float]]:
        """Ray resources of one rank: the actor and its first worker share a bundle."""
        if self.device == "cpu":
            # Without a group of its own, Ray LLM would ask for a whole core more.
            return [{"CPU": self.num_cpus}]
        worker = {"GPU": self.gpu_share}
        if self.accelerator_type:
            worker[f"accelerator_type:{self.accelerator_type}"] = 0.001
        bundles = [dict(worker) for _ in range(self.parallel.gpus_per_rank)]
        bundles[0]["CPU"] = self.num_cpus
        return bundles

    @property
    def placement_strategy(self) -> str:
        """Ray's strategy: GPUs that fit in one node are never spread over two."""
        return "STRICT_PACK" if self.parallel.gpus_per_rank <= self.gpus_per_node else "PACK"

    def llm_config(self, source: str) -> dict[str, Any]:
        """Keyword arguments of `ray.serve.llm.LLMConfig`."""
        return {
            "model_loading_config": {"model_id": self.model_id, "model_source": source},
            "engine_kwargs": dict(self.engine_args),
            "accelerator_config": {"kind": self.device},
            "accelerator_type": self.accelerator_type,
            "placement_group_config": {"bundle_per_worker": {"GPU": self.gpu_share}}
            if self.gpus and self.gpu_share < 1
            else None,
            "log_engine_metrics": False,
            "runtime_env": {"env_vars": dict(self.env)} if self.device == "gpu" else None,
        }
