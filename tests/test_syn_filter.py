"""A listening socket that takes no new connections goes on with those that have begun."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import syn_filter
from serving.syn_filter import kernel_migrates, take_no_new


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        found.listen()
        yield found


@pytest.fixture
def coming() -> Iterator[socket.socket]:
    with socket.socket() as found:
        found.setblocking(False)
        yield found


def is_connected(sock: socket.socket, wait_s: float) -> bool:
    _, writable, _ = select.select((), (sock,), (), wait_s)
    return bool(writable)


def test_nobody_new_comes_in(listening: socket.socket, coming: socket.socket) -> None:
    take_no_new(listening)
    coming.connect_ex(listening.getsockname())
    # On loopback a connection is made within the call.
    assert not is_connected(coming, 0.02)
    listening.setblocking(False)
    with pytest.raises(BlockingIOError):
        listening.accept()


def test_without_it_they_do(listening: socket.socket, coming: socket.socket) -> None:
    coming.connect_ex(listening.getsockname())
    assert is_connected(coming, 5)


def test_what_waits_is_accepted_and_speaks(listening: socket.socket, coming: socket.socket) -> None:
    coming.connect_ex(listening.getsockname())
    assert is_connected(coming, 5)
    take_no_new(listening)
    accepted, _ = listening.accept()
    with accepted:
        coming.sendall(b"ping")
        accepted.settimeout(5)
        assert accepted.recv(4) == b"ping"
        accepted.sendall(b"pong")
        coming.settimeout(5)
        assert coming.recv(4) == b"pong"
        coming.close()
        assert accepted.recv(1) == b""


@pytest.mark.parametrize(("text", "does"), [("1\n", True), ("0\n", False), (None, False)])
def test_the_kernel_is_asked_whether_it_hands_them_over(
    text: str | None, does: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "tcp_migrate_req"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(syn_filter, "MIGRATES", path)
    assert kernel_migrates() is does
