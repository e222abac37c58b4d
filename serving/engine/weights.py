"""What vLLM loads on this node: the operator's adapters looked at, tiny models written."""

from __future__ import annotations

from serving.catalogue import tiny
from serving.engine_plan import lora
from serving.engine_plan.plan import EnginePlan


def prepare(plan: EnginePlan) -> str:
    """Make sure that the weights are on this node if we can make them; returns what vLLM loads.

    Raises:
        ConfigError: files of an adapter are missing here, or larger than there is room for.
    """
    lora.check_files(plan.engine_args)
    if not plan.source.startswith(tiny.ID_PREFIX):
        return plan.source
    return str(tiny.build(tiny.family(plan.source), plan.cache_dir))
