"""Environment variables of an engine's processes: those of every engine, of a device, of a site. Pure."""

from __future__ import annotations

from pathlib import Path

from serving.settings import ModelConfig

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
    # The most that `limits` may allow (serving/config/limits.py).
    "VLLM_MAX_N_SEQUENCES": "64",
    "VLLM_MAX_STOP_STRINGS": "64",
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


def environment(config: ModelConfig, device: str, *, is_local: bool) -> dict[str, str]:
    """The variables of one model's engines.

    Args:
        is_local: the weights are on the node, so that nothing is downloaded.
    """
    env = dict(COMMON_ENV)
    if device == "cpu":
        env |= CPU_ENV
    if is_local:
        env["HF_HUB_OFFLINE"] = "1"
    return env | config.env | FORCED_ENV
