"""The one HTTP client of all commands: it knows which requests may go through a proxy, and which never do.

This machine and the inside of a cluster are reached directly, whatever HTTP_PROXY and its like say: a proxy
would get Ray's token, the deployment file and API keys. Other addresses are endpoints elsewhere, to which
the user's settings apply: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, which may name networks
(10.0.0.0/8). Redirects are not followed: what was meant for one address goes to no other.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from serving.errors import ConfigError

if TYPE_CHECKING:
    import httpx

MAX_ANSWER_BYTES = 64 * 1024 * 1024


class Unreachable(Exception):
    """Nothing answers at the address; the text gives the reason in a few words."""


class NotHttp(Exception):
    """The address answers, but not with HTTP, or with far too much of it."""


@dataclass(frozen=True)
class Answer:
    """The answer, whatever its status."""

    status: int
    body: bytes
    location: str | None = None

    @property
    def is_good(self) -> bool:
        """2xx."""
        return 200 <= self.status < 300


def ask(
    url: str,
    *,
    timeout_s: float,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    is_inside: bool = False,
) -> Answer:
    """Send one request.

    Args:
        url: http:// or https://.
        is_inside: it belongs to a cluster or to a stack of this machine: never through a proxy.

    Raises:
        Unreachable: nothing answers, or it stopped in the middle.
        NotHttp: the answer cannot be read.
        ConfigError: the settings name a proxy that cannot be used.
    """
    import httpx

    try:
        with client(url, timeout_s=timeout_s, is_inside=is_inside) as one:
            return _asked(one, method, url, headers or {}, body)
    except httpx.TimeoutException:
        raise Unreachable("it takes too long") from None
    except (httpx.ProtocolError, httpx.DecodingError, httpx.InvalidURL):
        raise NotHttp("the answer is not HTTP") from None
    except httpx.HTTPError as error:
        raise Unreachable(_reason(error)) from None


def client(
    url: str, *, timeout_s: float, is_inside: bool = False, verify_tls: bool = True
) -> httpx.Client:
    """A client for one address, for many requests.

    Raises:
        ConfigError: the settings name a proxy that cannot be used.
    """
    # A tenth of a second, which not every command needs.
    import httpx

    verify: ssl.SSLContext | bool = False
    if verify_tls and url.startswith("https:"):
        # The system's certificates, as everything else on the machine has them.
        verify = ssl.create_default_context()
    proxy = None if is_inside else proxy_for(url)
    try:
        # Not by its own reading of the environment, which knows no networks in NO_PROXY.
        return httpx.Client(timeout=timeout_s, verify=verify, trust_env=False, proxy=proxy)
    # A SOCKS proxy without the package for it; a proxy that is no URL.
    except (ImportError, ValueError, httpx.InvalidURL):
        raise ConfigError(
            "the proxy that the environment names cannot be used: HTTP_PROXY, HTTPS_PROXY and ALL_PROXY must "
            "be URLs of HTTP proxies; or put the host into NO_PROXY",
            param="HTTP_PROXY",
        ) from None


def proxy_for(url: str) -> str | None:
    """The proxy of the user's settings for an address."""
    if is_direct(url):
        return None
    proxies = getproxies_environment()
    proxy = proxies.get(urlsplit(url).scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def is_direct(url: str) -> bool:
    """Whether no proxy may be used: for this machine's loopback, and for the hosts in NO_PROXY."""
    host = urlsplit(url).hostname or ""
    return is_loopback(host) or any(_means(name, host) for name in _no_proxy(os.environ))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, as far as its name tells."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        address = getattr(address, "ipv4_mapped", None) or address
        return address.is_loopback or address.is_unspecified
    return False


def without_proxies(environment: Mapping[str, str], *hosts: str) -> dict[str, str]:
    """NO_PROXY and no_proxy for child processes: the present entries, loopback, and these hosts."""
    names = _no_proxy(environment)
    names += [name for name in ("localhost", "127.0.0.1", "::1", *hosts) if name not in names]
    return dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(names))


def _no_proxy(environment: Mapping[str, str]) -> list[str]:
    value = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    return [name.strip() for name in value.split(",") if name.strip()]


def _means(name: str, host: str) -> bool:
    """Whether an entry of NO_PROXY means a host: everything, a network, a domain, with a port or without."""
    if name == "*":
        return True
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        return address in ipaddress.ip_network(name.strip("[]"), strict=False)
    domain = name.lower().removeprefix("*").removeprefix(".").partition(":")[0]
    return bool(domain) and (host == domain or host.endswith("." + domain))


def _asked(
    one: httpx.Client, method: str, url: str, headers: Mapping[str, str], body: bytes | None
) -> Answer:
    with one.stream(method, url, headers=dict(headers), content=body) as response:
        parts, size = [], 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > MAX_ANSWER_BYTES:
                raise NotHttp(f"the answer is longer than {MAX_ANSWER_BYTES // 2**20} MiB")
        return Answer(response.status_code, b"".join(parts), response.headers.get("location"))


def _reason(error: Exception) -> str:
    """The system's own words, without the layers around them."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
