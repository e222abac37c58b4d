from __future__ import annotations

import socket
import subprocess
import sys

from loadtests.processes import free_ports
from loadtests.processes.free_ports import FIRST, LAST, free_port


def test_ports_are_free_and_each_is_given_once() -> None:
    ports = [free_port() for _ in range(20)]
    assert len(set(ports)) == len(ports)
    assert all(FIRST <= port <= LAST for port in ports)
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()


def test_a_port_that_somebody_listens_on_is_passed_over() -> None:
    first = free_port()
    # As if it had not been given to anybody.
    free_ports._locks.pop(first).close()
    with socket.create_server(("127.0.0.1", first)):
        assert free_port() != first


def test_another_process_gets_none_of_ours_while_we_run() -> None:
    mine = free_port()
    code = f"import loadtests.processes.free_ports as one; one.FIRST = one.LAST = {mine}; one.free_port()"
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert f"no port from {mine} to {mine} is free" in child.stderr
    free_ports._locks.pop(mine).close()
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
