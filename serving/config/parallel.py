"""The spread of one model over GPUs, read from its final engine arguments, and unsupported arguments.

A replica of the deployment file is a group of `data` ranks. Each rank is a process of Ray Serve with its own
engine on `tensor` x `pipeline` GPUs and its own address for gateways; the experts are shared by the group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.errors import ConfigError

_PLACED = (
    "Ray places the workers; set tensor_parallel_size, pipeline_parallel_size, data_parallel_size"
)
_RANKS = "the ranks find each other by themselves; set data_parallel_size only"
# What an engine started by hand needs and ours must not get, and why.
REFUSED_ARGS: Mapping[str, str] = {
    "nnodes": _PLACED,
    "node_rank": _PLACED,
    "master_addr": _PLACED,
    "master_port": _PLACED,
    "device_ids": _PLACED,
    "distributed_executor_backend": "it follows from the device: Ray on GPUs, processes on a CPU",
    "data_parallel_rank": _RANKS,
    "data_parallel_start_rank": _RANKS,
    "data_parallel_size_local": _RANKS,
    "data_parallel_address": _RANKS,
    "data_parallel_rpc_port": _RANKS,
    "data_parallel_backend": _RANKS,
    "data_parallel_hybrid_lb": "gateways choose among the ranks",
    "data_parallel_external_lb": "gateways choose among the ranks, it is set for you",
    "data_parallel_multi_port_external_lb": "gateways choose among the ranks",
    "enable_elastic_ep": "the number of ranks of a running group cannot change; change `replicas`",
    "elastic_ep_max_dp_size": "the number of ranks of a running group cannot change",
    "ec_transfer_config": "image encoders in replicas of their own are not supported",
}


@dataclass(frozen=True)
class Parallelism:
    """Sizes of the groups."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    # Experts whole on one GPU each, instead of a slice of every expert on all of them.
    expert: bool = False

    @property
    def gpus_per_rank(self) -> int:
        """GPUs of one engine."""
        return self.tensor * self.pipeline

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.gpus_per_rank * self.data

    @property
    def words(self) -> str:
        """As the catalogue writes a layout: `tp8 pp2`, `tp1 dp8 ep`."""
        words = [f"tp{self.tensor}"]
        words += [f"pp{self.pipeline}"] if self.pipeline > 1 else []
        words += [f"dp{self.data}"] if self.data > 1 else []
        return " ".join(words + (["ep"] if self.expert else []))

    @classmethod
    def from_args(cls, args: Mapping[str, Any]) -> Parallelism:
        """Read from engine arguments.

        Raises:
            ConfigError: a size is no positive integer, or an argument is not supported.
        """
        refuse(args)
        return cls(
            tensor=_size(args, "tensor_parallel_size"),
            pipeline=_size(args, "pipeline_parallel_size"),
            data=_size(args, "data_parallel_size"),
            expert=bool(args.get("enable_expert_parallel", False)),
        )


def refuse(args: Mapping[str, Any]) -> None:
    """Refuse arguments with which the engine would start and then fail, or work differently.

    Raises:
        ConfigError: `param` is the key.
    """
    for key, reason in REFUSED_ARGS.items():
        if key in args:
            raise ConfigError(
                f"engine_args.{key} cannot be set here: {reason}", param=f"engine_args.{key}"
            )
    if _size(args, "prefill_context_parallel_size") > 1:
        raise ConfigError(
            "engine_args.prefill_context_parallel_size: Ray reserves tensor x pipeline GPUs for an engine "
            "and this one would want more; use tensor_parallel_size, or decode_context_parallel_size "
            "which takes no GPU more",
            param="engine_args.prefill_context_parallel_size",
        )


def _size(args: Mapping[str, Any], key: str) -> int:
    value = args.get(key, 1)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(
            f"engine_args.{key}: must be a whole number, 1 or more; it is {value!r}",
            param=f"engine_args.{key}",
        )
    return value
