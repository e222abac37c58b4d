"""NIXL on this node: whether it is installed, and the address at which an engine serves its caches."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from importlib.util import find_spec

from serving.errors import ConfigError


def check_installed() -> None:
    """Refuse a node without NIXL: vLLM would report that in many lines, after a minute.

    Raises:
        ConfigError: what to install.
    """
    if find_spec("nixl") is None:
        raise ConfigError(
            "prefill: NIXL is not installed on this node: pip install --no-deps -r requirements/nixl.txt",
            param="prefill",
        )


def environment(host: str, given: Mapping[str, str]) -> dict[str, str]:
    """The variables that give this engine an address of its own, at which others fetch its caches.

    Args:
        host: where the replica listens for gateways; nothing of NIXL listens elsewhere if that is loopback.
        given: variables that the file sets; one network for UCX among them stays.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        port = int(probe.getsockname()[1])
    env = {"VLLM_NIXL_SIDE_CHANNEL_HOST": host, "VLLM_NIXL_SIDE_CHANNEL_PORT": str(port)}
    return ({"UCX_NET_DEVICES": "lo"} if _is_loopback(host) else {}) | {
        **{name: value for name, value in given.items() if name.startswith("UCX_")},
        **env,
    }


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
