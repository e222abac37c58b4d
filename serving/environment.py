"""The environment that every process of a cluster must have before Ray starts. Pure."""

from __future__ import annotations

from collections.abc import Mapping

# One line of reason each; `comptoir env` prints them.
CLUSTER: Mapping[str, tuple[str, str]] = {
    "RAY_USAGE_STATS_ENABLED": ("0", "Ray reports nothing"),
    "VLLM_NO_USAGE_STATS": ("1", "vLLM reports nothing"),
    "DO_NOT_TRACK": ("1", "the same for tools that honour it"),
    "HF_HUB_DISABLE_TELEMETRY": ("1", "the same for the model hub's client"),
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": ("1", "handlers run on Serve's own uvloop, not in a thread"),
    "RAYLLM_ENABLE_WORKER_PROCESS_SETUP_HOOK": ("0", "workers do not import vLLM unasked"),
    "RAY_SERVE_LOG_TO_STDERR": ("0", "Serve logs to its files only"),
    "RAY_COLOR_PREFIX": ("0", "plain logs"),
}


def cluster_environment() -> dict[str, str]:
    """The variables and their values."""
    return {name: value for name, (value, _) in CLUSTER.items()}


def as_exports() -> str:
    """The variables as shell commands, each with its reason."""
    return "\n".join(
        f"export {name}={value}  # {reason}" for name, (value, reason) in CLUSTER.items()
    )
