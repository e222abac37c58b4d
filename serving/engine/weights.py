"""The weights that vLLM loads on this node: the operator's adapters checked, tiny models built."""

from __future__ import annotations

from serving.catalogue import tiny
from serving.engine_plan import lora
from serving.engine_plan.plan import EnginePlan


def prepare(plan: EnginePlan) -> str:
    """Build the weights on this node if they are a tiny model's; return what vLLM loads.

    Raises:
        ConfigError: files of an adapter are missing here, or exceed the engine's room.
    """
    lora.check_files(plan.engine_args)
    if not plan.source.startswith(tiny.ID_PREFIX):
        return plan.source
    return str(tiny.build(tiny.family(plan.source), plan.cache_dir))
