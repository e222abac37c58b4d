"""The likely capacity of a replica from the catalogue's figures: an estimate, never a measurement. Pure.

Decoding reads the weights that a step uses and the KV cache of every request in the batch: memory bandwidth
bounds it. Prefill computes two operations per parameter and token: arithmetic bounds it. The model is
Williams, Waterman and Patterson's "Roofline" (2009). How much of the data sheet's figures an engine reaches
is assumed, and so is the KV cache of a token where the plan does not say it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from loadtests.plan.model import HostedConfig, Level, Span, TrafficConfig, span
from loadtests.workload.scenario import SloConfig
from serving.catalogue.fit import GPU_MEMORY_UTILISATION, choose_layout
from serving.catalogue.gpus import GPUS_PER_NODE, Gpu
from serving.catalogue.layouts import BYTES_PER_PARAMETER, GpuLayout
from serving.catalogue.spec import ModelSpec
from serving.errors import ConfigError

# Shares of the data sheet that engines reach.
BANDWIDTH_SHARE = span(0.45, 0.6, 0.75)
COMPUTE_SHARE = span(0.25, 0.4, 0.55)
# Bytes of KV cache per token: 128 KiB for 8 billion active parameters, with the root of their number.
KV_BYTES_AT_8B = 131072.0
KV_SPAN = (0.4, 1.0, 1.5)
# Requests in a batch where the plan does not say it: vLLM's default on large GPUs.
DEFAULT_SEQUENCES = 256
# The share of the time that prefill may take before first tokens wait for each other.
PREFILL_SHARE = 0.5
# What keeps the SLO for 95 % of all requests is less than what fills the machine.
STEADY_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Estimate:
    """One replica: requests per second, and seconds of a request."""

    rate_per_s: float
    e2e_s: float


def layout_for(spec: ModelSpec, gpu: Gpu, hosted: HostedConfig) -> GpuLayout:
    """The catalogue's layout, or the one that the plan asks for.

    Raises:
        ConfigError: the model does not fit there.
    """
    count = hosted.gpus_per_replica
    layout = choose_layout(spec, gpu, count or 8 * GPUS_PER_NODE)
    if layout is None:
        raise ConfigError(
            f"models: {spec.id} does not fit on {count} x {gpu.kind}: raise gpus_per_replica "
            f"(`comptoir catalogue show {spec.id}` lists layouts)",
            param="gpus_per_replica",
        )
    if hosted.quantisation is not None:
        if hosted.quantisation not in BYTES_PER_PARAMETER:
            raise ConfigError(
                f"models: quantisation {hosted.quantisation!r} is unknown; known: "
                f"{', '.join(BYTES_PER_PARAMETER)}",
                param="quantisation",
            )
        layout = layout.model_copy(update={"quantisation": hosted.quantisation})
    return layout


def estimate(
    spec: ModelSpec,
    gpu: Gpu,
    layout: GpuLayout,
    gpus: int,
    kind: TrafficConfig,
    hosted: HostedConfig,
    level: Level,
) -> Estimate:
    """One replica with one class of requests, under an assumption; `high` is the fast one.

    Returns:
        A rate of 0 where the SLO cannot be kept.

    Raises:
        ConfigError: the weights leave no memory.
    """
    bandwidth = gpus * gpu.bandwidth_gb_s * 1e9 * BANDWIDTH_SHARE.at(level)
    per_parameter = BYTES_PER_PARAMETER[layout.quantisation]
    # Tensor cores compute twice as fast with half the bits, where weights and activations have them.
    speedup = 2.0 if layout.quantisation in ("fp8", "mxfp8", "int8") else 1.0
    compute = gpus * gpu.bf16_tflops * 1e12 * speedup * COMPUTE_SHARE.at(level)
    active, total = spec.parameters_active_b * 1e9, spec.parameters_total_b * 1e9
    kv_bytes = _kv_bytes(spec, hosted).at(_opposite(level))
    context = kind.input_tokens + kind.output_tokens / 2
    prefill_s = 2 * active * kind.input_tokens / compute

    def step_s(batch: int) -> float:
        # Of a mixture of experts, a batch reads those that any of its tokens uses.
        used = total * (1 - (1 - active / total) ** batch) if active < total else total
        read = used * per_parameter + batch * context * kv_bytes
        return max(read / bandwidth, 2 * active * batch / compute)

    best = Estimate(0.0, 0.0)
    batch = 1
    free = gpus * gpu.memory_gib * GPU_MEMORY_UTILISATION * 2**30 - total * per_parameter
    slots = _slots(spec, f"{gpus} x {gpu.kind}", free, kv_bytes, kind, hosted)
    while batch <= slots:
        best = max(best, _at_batch(batch, step_s(batch), prefill_s, kind), key=_rate)
        batch = max(batch + 1, math.floor(batch * 1.05))
    return best


def _slots(
    spec: ModelSpec,
    where: str,
    free_bytes: float,
    kv_bytes: float,
    kind: TrafficConfig,
    hosted: HostedConfig,
) -> int:
    """Requests for which there is room beside the weights."""
    each = kind.input_tokens + kind.output_tokens
    slots = min(int(free_bytes / (kv_bytes * each)), hosted.max_num_seqs or DEFAULT_SEQUENCES)
    if slots < 1:
        raise ConfigError(
            f"models: the weights of {spec.id} leave no room for a request of {each:g} tokens on "
            f"{where}: raise gpus_per_replica",
            param="gpus_per_replica",
        )
    return slots


def _at_batch(batch: int, step_s: float, prefill_s: float, kind: TrafficConfig) -> Estimate:
    """So many requests decoding together, prefills between their steps; a rate of 0 where the SLO breaks."""
    slo = kind.slo or SloConfig()
    rate = STEADY_SHARE / (prefill_s + kind.output_tokens * step_s / batch)
    busy = rate * prefill_s
    if busy > PREFILL_SHARE:
        rate, busy = PREFILL_SHARE / prefill_s, PREFILL_SHARE
    token_s = step_s / (1 - busy)
    # A first token waits for a step, its own prefill, and those before it (M/D/1, a margin of two).
    first_s = step_s + prefill_s * (1 + busy / (1 - busy))
    e2e_s = first_s + kind.output_tokens * token_s
    kept = all(
        limit is None or seconds * 1000 <= limit
        for limit, seconds in (
            (slo.ttft_ms, first_s),
            (slo.tpot_ms, token_s),
            (slo.itl_ms, step_s + prefill_s if busy else step_s),
            (slo.e2e_ms, e2e_s),
        )
    )
    return Estimate(rate if kept else 0.0, e2e_s)


def _rate(one: Estimate) -> float:
    return one.rate_per_s


def _kv_bytes(spec: ModelSpec, hosted: HostedConfig) -> Span:
    if hosted.kv_bytes_per_token is not None:
        return hosted.kv_bytes_per_token
    typical = KV_BYTES_AT_8B * math.sqrt(spec.parameters_active_b / 8)
    return span(*(typical * factor for factor in KV_SPAN))


def _opposite(level: Level) -> Level:
    opposites: dict[Level, Level] = {"low": "high", "typical": "typical", "high": "low"}
    return opposites[level]
