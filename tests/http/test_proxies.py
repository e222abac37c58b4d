"""What proxies say of their clients: PROXY protocol and X-Forwarded-For."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from serving.errors import MalformedHttpError
from serving.http.proxies import counted_as, forwarded_for, parse_address, parse_proxy_header

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
TRUSTED = [ipaddress.ip_network("10.0.0.0/8")]


def v2(command: int, family: int, addresses: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(addresses)) + addresses


IPV4 = v2(1, 0x11, bytes([203, 0, 113, 5, 192, 0, 2, 1, 0, 1, 0, 2]))
IPV6 = v2(1, 0x21, ipaddress.ip_address("2001:db8::5").packed + bytes(20))


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (b"PROXY TCP4 203.0.113.5 192.0.2.1 56324 443\r\n", "203.0.113.5"),
        (b"PROXY TCP6 2001:db8::5 ::1 56324 443\r\n", "2001:db8::5"),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN what ever\r\n", None),
        (IPV4, "203.0.113.5"),
        (IPV6, "2001:db8::5"),
        (v2(0, 0x00, b""), None),
        (v2(1, 0x11, IPV4[16:] + b"\x04\x00\x01x"), "203.0.113.5"),
        (v2(1, 0x31, bytes(216)), None),
    ],
)
def test_a_header_is_read_wherever_it_is_cut(header: bytes, client: str | None) -> None:
    for length in range(len(header)):
        assert parse_proxy_header(header[:length]) is None
    address = ipaddress.ip_address(client) if client else None
    assert parse_proxy_header(header + b"GET /") == (address, len(header))


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 203.0.113.5\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        b"PROXY UDP4 203.0.113.5 192.0.2.1 1 2\r\n",
        b"\r\n\r\nGET /",
        SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\xff\xff",
        v2(1, 0x11, b"abc"),
    ],
)
def test_what_is_none_is_refused(header: bytes) -> None:
    with pytest.raises(MalformedHttpError):
        parse_proxy_header(header)


@pytest.mark.parametrize(
    ("values", "client"),
    [
        ([b"203.0.113.5"], "203.0.113.5"),
        ([b"1.1.1.1, 203.0.113.5, 10.0.0.1"], "203.0.113.5"),
        ([b"1.1.1.1", b"203.0.113.5"], "203.0.113.5"),
        ([b"[2001:db8::5]:443"], "2001:db8::5"),
        ([b"[2001:db8::5]"], "2001:db8::5"),
        ([b"2001:db8::5"], "2001:db8::5"),
        ([b"203.0.113.5:1234"], "203.0.113.5"),
        ([b"10.0.0.2, 10.0.0.1"], "10.0.0.2"),
        ([b"203.0.113.5, unknown"], None),
        ([b""], None),
        ([], None),
    ],
)
def test_the_last_address_that_is_no_proxys_counts(values: list[bytes], client: str | None) -> None:
    found = forwarded_for([(b"x-forwarded-for", value) for value in values], TRUSTED)
    assert found == (ipaddress.ip_address(client) if client else None)


def test_one_address_in_two_forms_counts_as_one() -> None:
    mapped, plain = parse_address("::ffff:192.0.2.1"), parse_address("192.0.2.1")
    assert mapped is not None
    assert mapped == plain
    assert parse_address("fe80::1%eth0") == ipaddress.ip_address("fe80::1")
    assert parse_address("a name") is None
    assert counted_as(mapped) == "192.0.2.1"
