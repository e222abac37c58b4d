"""The role of a process, told from its title. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.processes.titles import ENGINE, WORKER, is_called

# In the order of tables: from the client to the engine, then what only accompanies.
ROLES = ("client", "gateway", "replica", "engine", "controller", "other ray", "launcher", "other")

# The beginning of the title, or of the last part of the program's path.
_BEGINNINGS = (
    ("VLLM::APIServer", "replica"),
    ("ray::ServeController", "controller"),
    ("ray::ProxyActor", "gateway"),
    ("ray::HAProxyManager", "gateway"),
    ("haproxy", "gateway"),
    ("raylet", "other ray"),
    ("gcs_server", "other ray"),
    ("ray::", "other ray"),
    ("ray-dashboard", "other ray"),
)
# Replicas of Ray Serve LLM that no engine belongs to: its HTTP ingress, its router.
_INGRESSES = ("OpenAiIngress", "LLMRouter")
_REPLICA = "ray::ServeReplica:"


def role_of(command: Sequence[str]) -> str:
    """The role of a process, given its command line."""
    title = command[0] if command else ""
    if any(is_called(" ".join(command), one) for one in (ENGINE, WORKER)):
        return "engine"
    if title.startswith(_REPLICA):
        if any(name in title for name in _INGRESSES):
            return "gateway"
        return "gateway" if title.startswith("ray::ServeReplica:gateway:") else "replica"
    for beginning, role in _BEGINNINGS:
        if title.startswith(beginning) or title.rpartition("/")[2].startswith(beginning):
            return role
    if "vllm.entrypoints.openai.api_server" in command:
        return "replica"
    if any("/ray/" in part for part in command):
        return "other ray"
    return "other"
