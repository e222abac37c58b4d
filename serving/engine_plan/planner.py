"""From a model's configuration to its engine plans, decided before any heavy import.

Pure: a `ModelConfig`, a catalogue entry (or a tiny family) and a device go in, arguments for
`ray.serve.llm.LLMConfig` come out. Precedence: the config's engine_args > the layout > the entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from serving.catalogue import tiny
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.licences import check_licence
from serving.catalogue.spec import ModelSpec
from serving.config.parallel import Parallelism
from serving.engine_plan import disaggregation, layout_choice, lora, spread
from serving.engine_plan.disaggregation import Role
from serving.engine_plan.environment import environment
from serving.engine_plan.hosted import describe
from serving.engine_plan.plan import EnginePlan
from serving.errors import ConfigError
from serving.replica_facts import ModelCard
from serving.routing.capabilities import card_capabilities
from serving.settings import ModelConfig

GIB = 2**30
TINY_GPU_SHARE = 0.25

# The same on every device. Requests are never logged; documentation pages are not served.
FRONTEND_ARGS = {
    "enable_log_requests": False,
    "disable_fastapi_docs": True,
    "enable_prompt_tokens_details": True,
    "fingerprint_mode": "hash",
}
# With `auto`, the first schema that xgrammar cannot compile puts the engine on another back end for good, and
# calls that the first one had compiled then fail.
_BACKEND = {"backend": "xgrammar"}


@dataclass(frozen=True)
class _Basis:
    """The facts of a catalogue entry or a tiny family, before the site's own arguments."""

    task: str
    source: str
    args: Mapping[str, Any]
    card: ModelCard
    is_local: bool
    # None: a tiny model.
    spec: ModelSpec | None = None
    accelerator_type: str | None = None
    kv_gib: float = 4.0
    num_cpus: float = 1.0
    gpu_share: float = 1.0

    def card_for(self, args: Mapping[str, Any]) -> ModelCard:
        """The card, with the abilities that these arguments give; for a tiny model, those of its family."""
        if self.spec is None:
            return self.card
        found = card_capabilities(self.task, args, self.spec.modalities)
        return replace(self.card, capabilities=tuple(found))


def make_plans(
    config: ModelConfig,
    catalogue: Catalogue,
    *,
    device: Literal["cpu", "gpu"],
    gpu: str | None,
    cache_dir: Path,
) -> list[EnginePlan]:
    """The plans of a model: of its own replicas first, then of its prefill replicas, if it has some.

    Raises:
        CatalogueError, LicenceError, ConfigError: see `make_plan`.
    """
    plans = []
    for role in disaggregation.roles(config):
        try:
            made = make_plan(
                config, catalogue, device=device, gpu=gpu, cache_dir=cache_dir, role=role
            )
        except ConfigError as error:
            where = "prefill replicas: " if role == "prefill" else ""
            raise type(error)(f"{where}{error.message}", param=error.param) from None
        plans.append(made)
    disaggregation.check_pair([one.source for one in plans], [one.engine_args for one in plans])
    if len(plans) == 1:
        return plans
    return [
        replace(
            one, build=disaggregation.build_of(config, one.source, one.engine_args.get("revision"))
        )
        for one in plans
    ]


def make_plan(
    config: ModelConfig,
    catalogue: Catalogue,
    *,
    device: Literal["cpu", "gpu"],
    gpu: str | None,
    cache_dir: Path,
    role: Role | None = None,
) -> EnginePlan:
    """The plan of replicas of one kind.

    Args:
        device: where this site's engines run.
        gpu: kind of the GPUs (`h100`, `h200`, `l40s`), for choosing a layout.
        role: one of `disaggregation.roles(config)`; by default the model's own replicas'.

    Raises:
        CatalogueError: there is no such entry, or it cannot be started as published.
        LicenceError: the site may not offer this model.
        ConfigError: no layout fits.
    """
    disaggregation.check(config)
    role = role or disaggregation.roles(config)[0]
    config = disaggregation.for_role(config, role)
    if config.entry.startswith(tiny.ID_PREFIX):
        basis = _of_tiny(config, device)
    else:
        basis = _of_entry(config, catalogue, device, gpu)
    args = {
        **basis.args,
        **_device_args(config, device, basis.kv_gib),
        **lora.arguments(config.adapters),
        **FRONTEND_ARGS,
        **disaggregation.arguments(config, role),
        **config.engine_args,
    }
    args["structured_outputs_config"] = {**_BACKEND, **args.get("structured_outputs_config", {})}
    disaggregation.check_plan(role, basis.task, Parallelism.from_args(args))
    lora.check_arguments(args)
    spread.check(describe(config, basis.spec, args, device=device, gpu=gpu))
    return EnginePlan(
        model_id=config.id,
        device=device,
        source=basis.source,
        engine_args=args,
        env=environment(config, device, is_local=basis.is_local),
        card=basis.card_for(args),
        role=role,
        accelerator_type=basis.accelerator_type,
        num_cpus=basis.num_cpus,
        gpu_share=basis.gpu_share,
        gpus_per_node=config.gpus_per_node,
        drain_timeout_s=config.drain_timeout_s,
        watchdog_s=config.watchdog_s,
        cache_dir=cache_dir,
    )


def _of_entry(config: ModelConfig, catalogue: Catalogue, device: str, gpu: str | None) -> _Basis:
    spec = catalogue.get(config.entry)
    licence = catalogue.licence_of(spec)
    site = config.site
    check_licence(spec, licence, site.jurisdiction, frozenset(site.acknowledged_licences))
    spec.check_startable(converted=config.source is not None)
    layout = None if device == "cpu" else layout_choice.choose(config, spec, gpu)
    args = spec.engine_kwargs(layout)
    checkpoint = spec.checkpoint(layout.quantisation if layout else None)
    revision = config.revision or checkpoint.revision
    if config.source is None and revision:
        args["revision"] = args["tokenizer_revision"] = revision
    card = ModelCard(
        task=spec.task,
        vendor=spec.vendor,
        vendor_jurisdiction=spec.vendor_jurisdiction,
        licence=licence.name,
        notices=tuple(duty.text for duty in licence.duties),
        repository=checkpoint.repo,
        revision=revision,
        **_site_facts(config, spec.id),
    )
    return _Basis(
        task=spec.task,
        source=config.source or checkpoint.repo,
        args=args | _parsers(spec.tool_parser, spec.reasoning_parser),
        card=card,
        is_local=config.source is not None,
        spec=spec,
        accelerator_type=layout_choice.accelerator(config, device, layout, gpu),
    )


def _of_tiny(config: ModelConfig, device: str) -> _Basis:
    family = tiny.family(config.entry)
    args = dict(family.engine_args) | _parsers(family.tool_parser, family.reasoning_parser)
    card = ModelCard(
        task=family.task,
        capabilities=tuple(card_capabilities(family.task, args)),
        vendor="comptoir",
        licence="Apache License 2.0",
        notices=("random weights, for tests only: the text has no meaning",),
        **_site_facts(config, config.entry),
    )
    if device == "gpu":  # a tiny model would otherwise claim a whole GPU's memory
        args["gpu_memory_utilization"] = 0.8 * TINY_GPU_SHARE
    return _Basis(
        task=family.task,
        source=config.entry,
        args=args,
        card=card,
        is_local=True,
        kv_gib=0.25,
        num_cpus=0.1,
        gpu_share=TINY_GPU_SHARE,
    )


def _site_facts(config: ModelConfig, entry: str) -> dict[str, Any]:
    return {
        "aliases": config.aliases,
        "adapters": tuple(config.adapters),
        "entry": entry,
        "min_replicas": config.replicas.min,
        "prefill_min_tokens": config.prefill and config.prefill.min_prompt_tokens,
    }


def _parsers(tool_parser: str | None, reasoning_parser: str | None) -> dict[str, Any]:
    args: dict[str, Any] = {}
    if tool_parser:
        args |= {"enable_auto_tool_choice": True, "tool_call_parser": tool_parser}
    if reasoning_parser:
        args["reasoning_parser"] = reasoning_parser
    return args


def _device_args(config: ModelConfig, device: str, kv_gib: float) -> dict[str, Any]:
    args: dict[str, Any] = {"load_format": "safetensors", "disable_log_stats": False}
    if device == "cpu":
        args["enforce_eager"] = True
        args["kv_cache_memory_bytes"] = int((config.kv_cache_gib or kv_gib) * GIB)
    elif config.kv_cache_gib:
        args["kv_cache_memory_bytes"] = int(config.kv_cache_gib * GIB)
    return args
