"""The environment that every process of a cluster must have before Ray starts. Pure."""

from __future__ import annotations

from collections.abc import Mapping

# One line of reason each; `comptoir env` prints them.
CLUSTER: Mapping[str, tuple[str, str]] = {
    "RAY_AUTH_MODE": ("token", "nobody talks to Ray without the token in ~/.ray/auth_token"),
    "RAY_USAGE_STATS_ENABLED": ("0", "Ray reports nothing"),
    "RAY_USAGE_STATS_REPORT_URL": (
        "http://127.0.0.1:9",
        "nor that it reports nothing, which `ray start` would tell its makers",
    ),
    "VLLM_NO_USAGE_STATS": ("1", "vLLM reports nothing"),
    "DO_NOT_TRACK": ("1", "the same for tools that honour it"),
    "HF_HUB_DISABLE_TELEMETRY": ("1", "the same for the model hub's client"),
    # RAY_SERVE_THROUGHPUT_OPTIMIZED would set these too, but it also starts a proxy on 0.0.0.0.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": ("0", "handlers run on Serve's own uvloop"),
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": ("0", "the same for discovery"),
    "RAY_SERVE_FREEZE_GC_ON_STARTUP": ("1", "no long garbage collections"),
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
