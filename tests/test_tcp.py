"""What the kernel says of a TCP connection."""

from __future__ import annotations

import socket
import time

from serving.tcp import has_ended_input, is_reset, tcp_info


def test_the_kernel_says_what_was_acknowledged_and_what_was_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with socket.create_connection(listener.getsockname()) as here:
            there, _ = listener.accept()
            with there:
                here.sendall(b"x" * 1000)
                there.recv(1000)
                info = tcp_info(here)
                assert info is not None
                assert info.is_delivered
                assert info.acked_bytes == 1000
                here.setblocking(False)
                here.send(b"x" * 1_000_000)
                info = tcp_info(here)
                assert info is not None
                assert not info.is_delivered
                assert 1000 < info.acked_bytes < 1_000_000
                assert info.last_ack_ms < 1000


def test_what_is_no_connection_says_nothing() -> None:
    assert tcp_info(None) is None
    with socket.socket(socket.AF_UNIX) as sock:
        assert tcp_info(sock) is None
        assert not is_reset(sock)
        assert not has_ended_input(sock)


def test_the_kernel_knows_who_has_ended_their_input_and_who_has_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        there, _ = listener.accept()
        with there:
            assert not has_ended_input(there)
            here.shutdown(socket.SHUT_WR)
            assert there.recv(1) == b""
            assert has_ended_input(there)
            assert not is_reset(there)
            there.sendall(b"x")
            # With unread bytes a close is a reset.
            here.close()
            give_up_s = time.monotonic() + 10
            while not is_reset(there) and time.monotonic() < give_up_s:
                time.sleep(0.01)
            assert is_reset(there)
            assert not has_ended_input(there)
