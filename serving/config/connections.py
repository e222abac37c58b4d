"""Configuration of connections with clients: their number, their time limits, trusted proxies."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from serving.config.base import FrozenConfig


class ConnectionsConfig(FrozenConfig):
    """Bounds on connections; all times apply to one message, not to a whole connection."""

    # At most so many connections, of which so many on which no key was accepted yet. None: no bound.
    max_connections: int = Field(default=10_000, ge=1, le=1_000_000)
    max_unauthenticated: int | None = Field(default=4000, ge=1, le=1_000_000)
    # Of the latter those of one address (IPv6: one /64 network); loopback and trusted proxies do not count.
    max_per_address: int | None = Field(default=1000, ge=1, le=1_000_000)
    # The request line and headers must be here so long after their first byte.
    head_timeout_s: float = Field(default=15.0, ge=0.01, le=3600)
    # The body must be whole after so long, and meanwhile arrive at this rate at least.
    body_timeout_s: float = Field(default=120.0, ge=0.01, le=3600)
    body_min_bytes_per_s: int = Field(default=512, ge=0, le=1_000_000_000)
    # A kept-alive connection may rest so long between two requests.
    idle_timeout_s: float = Field(default=75.0, ge=0.01, le=3600)
    # A client that takes (nearly) nothing of what is ready for it for so long loses its connection.
    write_stall_s: float = Field(default=30.0, ge=0.01, le=3600)
    # What still comes on a connection that closes is read so long, so that its last answer is not lost.
    linger_s: float = Field(default=5.0, ge=0.01, le=60)
    # Networks of proxies: their `X-Forwarded-For` is believed.
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    # Connections of trusted proxies begin with a header of the PROXY protocol, version 1 or 2; it is believed
    # instead of `X-Forwarded-For`.
    proxy_protocol: bool = False

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _are_networks(cls, value: Any) -> Any:
        return tuple(map(_network, value)) if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _header_has_a_sender(self) -> Self:
        if self.proxy_protocol and not self.trusted_proxies:
            raise ValueError(
                "proxy_protocol: nobody may send the header: name the proxy's network in trusted_proxies"
            )
        return self

    @classmethod
    def between_us(cls) -> Self:
        """Bounds for a replica: its clients are gateways, few, known, and as slow as their own clients."""
        return cls(max_unauthenticated=None, max_per_address=None, write_stall_s=3600.0)


def _network(value: Any) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        # Text only: 10 would be the address 0.0.0.10.
        return ip_network(value if isinstance(value, str) else "")
    except ValueError:
        pass
    try:
        meant = f"; {value} is in the network {ip_network(value, strict=False)}"
    except ValueError:
        meant = ""
    raise ValueError(
        "must hold networks such as 10.1.0.0/16, or addresses, each as text"
        + (meant if isinstance(value, str) else "")
    )
