"""What vLLM's CPU workers lack to share experts between ranks: two collectives, over gloo. For tests.

vLLM imports this in every worker, because the engine argument `worker_extension_cls` names `Extension`.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator


class Extension:
    """Adds nothing to a worker: importing this module is what counts."""


def gather_one(
    communicator: CpuCommunicator, tensor: torch.Tensor, sizes: list[int]
) -> torch.Tensor:
    """Concatenate what the ranks have; gloo wants the same shape of all."""
    padded = tensor.new_zeros((max(sizes), *tensor.shape[1:]))
    padded[: tensor.shape[0]] = tensor
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded, group=communicator.device_group)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def all_gatherv(
    self: CpuCommunicator,
    input_: torch.Tensor | list[torch.Tensor],
    dim: int = 0,
    sizes: list[int] | None = None,
) -> torch.Tensor | list[torch.Tensor]:
    """As `CudaCommunicator.all_gatherv`."""
    first = input_[0] if isinstance(input_, list) else input_
    sizes = sizes or [first.shape[0]] * self.world_size
    if isinstance(input_, list):
        return [gather_one(self, one, sizes) for one in input_]
    return gather_one(self, input_, sizes)


def reduce_scatterv(
    self: CpuCommunicator, input_: torch.Tensor, dim: int = -1, sizes: list[int] | None = None
) -> torch.Tensor:
    """As `CudaCommunicator.reduce_scatterv`, for dim 0."""
    sizes = sizes or [input_.shape[0] // self.world_size] * self.world_size
    total = input_.contiguous().clone()
    dist.all_reduce(total, group=self.device_group)
    start = sum(sizes[: self.rank_in_group])
    return total[start : start + sizes[self.rank_in_group]]


CpuCommunicator.all_gatherv = all_gatherv
CpuCommunicator.reduce_scatterv = reduce_scatterv
