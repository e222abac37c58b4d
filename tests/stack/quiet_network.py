"""A network with nobody in it, and a note of whoever was asked for.

    unshare --user --map-root-user --net python -m tests.stack.quiet_network FILE COMMAND...

Everything that is not for this machine comes back on loopback, where it is read and written to the file, one
address a line, with the name for questions to a name server.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

_ETH_P_ALL = 3
_HEADER = 14
# Of a question to a name server: what is printed of the name.
_NAME = re.compile(rb"[\x01-\x3f][a-z0-9-]+(?:[\x01-\x3f][a-z0-9-]+)+", re.I)


def asked(frame: bytes) -> str | None:
    """Who a frame is for; None where it is this machine."""
    kind, packet = frame[12:14], frame[_HEADER:]
    if kind == b"\x08\x00":
        address: ipaddress.IPv4Address | ipaddress.IPv6Address
        address = ipaddress.IPv4Address(packet[16:20])
        payload, protocol = packet[(packet[0] & 15) * 4 :], packet[9]
    elif kind == b"\x86\xdd":
        address = ipaddress.IPv6Address(packet[24:40])
        payload, protocol = packet[40:], packet[6]
    else:
        return None
    # Multicast: a kernel's own announcements.
    if address.is_loopback or address.is_multicast:
        return None
    port = int.from_bytes(payload[2:4], "big") if protocol in (6, 17) else 0
    name = _NAME.search(payload[20:]) if port == 53 else None
    words = re.sub(rb"[\x01-\x2c]", b".", name.group()[1:]).decode() if name else ""
    return f"{address} {port} {words}".strip()


def main() -> int:
    """Runs the command."""
    note, *command = sys.argv[1:]
    for words in ("link set lo up", "route add default dev lo", "-6 route add default dev lo"):
        subprocess.run(["ip", *words.split()], check=not words.startswith("-6"))
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    listener.bind(("lo", 0))
    threading.Thread(target=_note, args=(listener, Path(note)), daemon=True).start()
    return subprocess.run(command, check=False).returncode


def _note(listener: socket.socket, path: Path) -> None:
    with path.open("w") as file:
        while True:
            who = asked(listener.recv(2048))
            if who:
                print(who, file=file, flush=True)


if __name__ == "__main__":
    sys.exit(main())
