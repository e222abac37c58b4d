"""EnginePlan: everything a replica needs to start its engine, decided before anything is imported.

Pure: a `ModelConfig`, a catalogue entry (or a tiny family) and a device go in, arguments for
`ray.serve.llm.LLMConfig` come out. Precedence: the config's engine_args > the layout > the entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from serving.catalogue import tiny
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.licences import check_licence
from serving.config.parallel import Parallelism
from serving.engine_plan import disaggregation, hosted, layout_choice, lora
from serving.engine_plan.disaggregation import Role
from serving.errors import ConfigError
from serving.replica_facts import ModelCard
from serving.routing.capabilities import card_capabilities
from serving.settings import ModelConfig

GIB = 2**30
TINY_PREFIX = "tiny-"
TINY_GPU_SHARE = 0.25

# Phone-home off; `nobind` and one thread keep several CPU engines from fighting for the same cores;
# without TORCH_COMPILE_DISABLE the first request with logprobs waits 15 s for a compiler.
COMMON_ENV = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    # vLLM's own logging configuration closes every handler of the process, Ray Serve's among them, and a
    # restarted Serve controller replaces replicas whose log handler is gone. This one only sets the level.
    "VLLM_LOGGING_CONFIG_PATH": str(Path(__file__).with_name("vllm_logging.json")),
    "VLLM_MAX_N_SEQUENCES": "64",
    "TOKENIZERS_PARALLELISM": "false",
    # vLLM looks at a model's code with `python -m`, which would take another `serving` from the working
    # directory for this one.
    "PYTHONSAFEPATH": "1",
}
CPU_ENV = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCH_COMPILE_DISABLE": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
# An inherited value would win over kv_cache_gib.
UNSET_ENV = ("VLLM_CPU_KVCACHE_SPACE", "VLLM_DEBUG_LOG_API_SERVER_RESPONSE")
# Nothing in a config file changes these: they keep request text and reports inside.
FORCED_ENV = {name: value for name, value in COMMON_ENV.items() if name != "TOKENIZERS_PARALLELISM"}

# The same on every device. Requests are never logged; documentation pages are not served.
FRONTEND_ARGS = {
    "enable_log_requests": False,
    "disable_fastapi_docs": True,
    "enable_prompt_tokens_details": True,
    "fingerprint_mode": "hash",
}


@dataclass(frozen=True)
class EnginePlan:
    """How one replica runs; travels to it pickled."""

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
        """GPUs that fit in a node are never spread over two; vLLM's workers need a bundle each."""
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


def make_plans(
    config: ModelConfig,
    catalogue: Catalogue,
    *,
    device: Literal["cpu", "gpu"],
    gpu: str | None,
    cache_dir: Path,
) -> list[EnginePlan]:
    """Decide how a model runs: how its replicas do, and then those that only compute prompts, if it has some.

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
    """Decide how replicas of one kind run.

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
    if config.entry.startswith(TINY_PREFIX):
        return _tiny_plan(config, device, cache_dir, role)
    spec = catalogue.get(config.entry)
    check_licence(
        spec,
        catalogue.licence_of(spec),
        config.site.jurisdiction,
        frozenset(config.site.acknowledged_licences),
    )
    spec.check_startable(converted=config.source is not None)
    layout = None if device == "cpu" else layout_choice.choose(config, spec, gpu)
    args = spec.engine_kwargs(layout)
    checkpoint = spec.checkpoint(layout.quantisation if layout else None)
    revision = config.revision or checkpoint.revision
    if config.source is None and revision:
        args["revision"] = args["tokenizer_revision"] = revision
    args |= _parsers(spec.tool_parser, spec.reasoning_parser)
    args |= _device_args(config, device) | lora.arguments(config.adapters)
    args |= FRONTEND_ARGS | disaggregation.arguments(config, role) | config.engine_args
    disaggregation.check_plan(role, spec.task, Parallelism.from_args(args))
    hosted.check(hosted.describe(config, spec, args, device=device, gpu=gpu))
    licence = catalogue.licence_of(spec)
    card = ModelCard(
        task=spec.task,
        capabilities=tuple(card_capabilities(spec.task, args, spec.modalities)),
        vendor=spec.vendor,
        vendor_jurisdiction=spec.vendor_jurisdiction,
        licence=licence.name,
        notices=tuple(duty.text for duty in licence.duties),
        repository=checkpoint.repo,
        revision=revision,
        **_site_facts(config, spec.id),
    )
    return EnginePlan(
        model_id=config.id,
        device=device,
        source=config.source or checkpoint.repo,
        engine_args=args,
        env=_env(config, device, local=config.source is not None),
        card=card,
        role=role,
        accelerator_type=layout_choice.accelerator(config, device, layout, gpu),
        gpus_per_node=config.gpus_per_node,
        drain_timeout_s=config.drain_timeout_s,
        watchdog_s=config.watchdog_s,
        cache_dir=cache_dir,
    )


def _tiny_plan(
    config: ModelConfig, device: Literal["cpu", "gpu"], cache_dir: Path, role: Role
) -> EnginePlan:
    family = tiny.family(config.entry[len(TINY_PREFIX) :])
    args = dict(family.engine_args) | _parsers(family.tool_parser, family.reasoning_parser)
    card = ModelCard(
        task=family.task,
        capabilities=tuple(card_capabilities(family.task, args)),
        vendor="comptoir",
        licence="Apache License 2.0",
        notices=("random weights, for tests only: the text has no meaning",),
        **_site_facts(config, config.entry),
    )
    args |= _device_args(config, device, kv_gib=0.25) | lora.arguments(config.adapters)
    args |= FRONTEND_ARGS | disaggregation.arguments(config, role)
    if device == "gpu":  # a tiny model would otherwise claim a whole GPU's memory
        args["gpu_memory_utilization"] = 0.8 * TINY_GPU_SHARE
    args |= config.engine_args
    disaggregation.check_plan(role, family.task, Parallelism.from_args(args))
    hosted.check(hosted.describe(config, None, args, device=device, gpu=None))
    return EnginePlan(
        model_id=config.id,
        device=device,
        source=config.entry,
        engine_args=args,
        env=_env(config, device, local=True),
        card=card,
        role=role,
        num_cpus=0.1,
        gpu_share=TINY_GPU_SHARE,
        gpus_per_node=config.gpus_per_node,
        drain_timeout_s=config.drain_timeout_s,
        watchdog_s=config.watchdog_s,
        cache_dir=cache_dir,
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


def _device_args(config: ModelConfig, device: str, kv_gib: float = 4.0) -> dict[str, Any]:
    args: dict[str, Any] = {"load_format": "safetensors", "disable_log_stats": False}
    if device == "cpu":
        args["enforce_eager"] = True
        args["kv_cache_memory_bytes"] = int((config.kv_cache_gib or kv_gib) * GIB)
    elif config.kv_cache_gib:
        args["kv_cache_memory_bytes"] = int(config.kv_cache_gib * GIB)
    return args


def _env(config: ModelConfig, device: str, *, local: bool) -> dict[str, str]:
    env = dict(COMMON_ENV)
    if device == "cpu":
        env |= CPU_ENV
    if local:
        env["HF_HUB_OFFLINE"] = "1"
    return env | config.env | FORCED_ENV
