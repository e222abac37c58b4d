"""The real client: addresses that count together, and the clients that trusted proxies name.

The PROXY protocol: https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterable

from serving.errors import MalformedHttpError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_V1 = re.compile(
    rb"PROXY (?:UNKNOWN[^\r\n]*|TCP[46] ([0-9A-Fa-f.:]+) [0-9A-Fa-f.:]+ \d{1,5} \d{1,5})\r\n"
)
_V1_MAX_BYTES = 107
_V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
# Addresses of the longest kind and room for extensions; the length is the sender's word.
_V2_MAX_BYTES = 4096
_V2_SOURCES = {0x11: slice(0, 4), 0x21: slice(0, 16)}


def parse_address(text: str) -> Address | None:
    """An address as `getpeername` or a header writes it; None where it is something else."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def counted_as(address: Address) -> str:
    """The address to count by: an IPv6 address by its /64 network, of which one client has many."""
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_address(int(address) >> 64 << 64)) + "/64"


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Whether the address is in one of the networks."""
    return any(address in network for network in networks)


def forwarded_for(
    headers: Iterable[tuple[bytes, bytes]], trusted: Iterable[Network]
) -> Address | None:
    """The last address of `X-Forwarded-For` that is no trusted proxy's; anyone can forge those before it."""
    values = [value for name, value in headers if name == b"x-forwarded-for"]
    last: Address | None = None
    for part in reversed(b",".join(values).decode("latin-1").split(",")):
        text = part.strip()
        if text.startswith("[") or text.count(":") == 1:
            # `[2001:db8::1]:443` and `192.0.2.1:443`, as some proxies write it.
            text = (
                text.rpartition(":")[0].strip("[]") if not text.endswith("]") else text.strip("[]")
            )
        address = parse_address(text)
        if address is None:
            break
        last = address
        if not is_within(address, trusted):
            break
    return last


def parse_proxy_header(data: bytes) -> tuple[Address | None, int] | None:
    """A PROXY header: the client's address (None: the proxy speaks for itself) and the header's length.

    Returns:
        None while the header is not all here.

    Raises:
        MalformedHttpError: it is not one.
    """
    if data.startswith(_V2_SIGNATURE[: len(data)]) and data[:1] == b"\r":
        return _parse_v2(data)
    if not data.startswith(b"PROXY "[: len(data)]):
        raise MalformedHttpError("the PROXY protocol header is missing")
    end = data.find(b"\r\n", 0, _V1_MAX_BYTES)
    if end < 0:
        if len(data) >= _V1_MAX_BYTES:
            raise MalformedHttpError("the PROXY protocol header is too long")
        return None
    found = _V1.fullmatch(data, 0, end + 2)
    if found is None:
        raise MalformedHttpError("the PROXY protocol header is malformed")
    return (parse_address(found[1].decode()) if found[1] else None), end + 2


def _parse_v2(data: bytes) -> tuple[Address | None, int] | None:
    if len(data) < 16:
        return None
    command, family, length = data[12], data[13], struct.unpack_from("!H", data, 14)[0]
    if command >> 4 != 2 or command & 15 > 1 or length > _V2_MAX_BYTES:
        raise MalformedHttpError("the PROXY protocol header is malformed")
    if len(data) < 16 + length:
        return None
    place = _V2_SOURCES.get(family)
    if command & 15 == 0 or place is None:
        return None, 16 + length
    source = data[16 : 16 + length][place]
    if len(source) != place.stop:
        raise MalformedHttpError("the PROXY protocol header is too short")
    return parse_address(str(ipaddress.ip_address(source))), 16 + length
