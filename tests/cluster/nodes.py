"""Machines of a cluster on one machine: each has a network, processes, an address and a cable of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = ROOT / ".venv" / "bin"
SCRIPTS = ROOT / "scripts" / "cluster"
# For tests of networks (RFC 2544): no machine has them.
NETWORK = "198.18.77"


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)


def why_not() -> str | None:
    """Why there can be no such machines here; None if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    tried = Wire()
    try:
        tried.plug_in("t", 99)
        run("ip", "netns", "exec", tried.namespace("t"), "unshare", "--pid", "--fork", "true")
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.strip()}"
    finally:
        tried.remove()
    return None


class Wire:
    """A switch with one cable to each machine; this process is plugged in too."""

    def __init__(self) -> None:
        # Interfaces have at most 15 characters.
        self._id = f"{os.getpid() % 100_000}"
        self._machines: list[str] = []
        self._switch = f"cs{self._id}"
        self._has_switch = False

    def namespace(self, name: str) -> str:
        return f"comptoir-{self._id}-{name}"

    def _cable(self, name: str) -> str:
        return f"c{name}{self._id}"

    def plug_in(self, name: str, number: int) -> str:
        """Add a machine; returns its address."""
        if not self._has_switch:
            run("ip", "link", "add", self._switch, "type", "bridge")
            self._has_switch = True
            run("ip", "address", "add", f"{NETWORK}.1/24", "dev", self._switch)
            run("ip", "link", "set", self._switch, "up")
        space, cable = self.namespace(name), self._cable(name)
        run("ip", "netns", "add", space)
        self._machines.append(name)
        run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        run("ip", "link", "set", cable, "master", self._switch)
        address = f"{NETWORK}.{number}"
        run("ip", "-n", space, "address", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", space, "link", "set", "lo", "up")
        run("ip", "-n", space, "link", "set", "eth0", "up")
        run("ip", "-n", space, "route", "add", "default", "via", f"{NETWORK}.1")
        # As docs/bare-metal.md asks for.
        run("ip", "netns", "exec", space, "sysctl", "-w", "net.ipv4.tcp_retries2=5")
        self.set_link(name, up=True)
        return address

    def set_link(self, name: str, *, up: bool) -> None:
        """Pull the machine's cable out of the switch, or put it back."""
        run("ip", "link", "set", self._cable(name), "up" if up else "down")

    def remove(self) -> None:
        """Everything goes with the namespaces, but for the switch."""
        for name in self._machines:
            subprocess.run(["ip", "netns", "delete", self.namespace(name)], check=False)
        if self._has_switch:
            subprocess.run(["ip", "link", "delete", self._switch], check=False)
        self._machines, self._has_switch = [], False


class Machine:
    """Runs one of the cluster's scripts as its first process; whatever that starts ends with it."""

    def __init__(self, wire: Wire, name: str, number: int, folder: Path) -> None:
        self.name = name
        self.address = wire.plug_in(name, number)
        self._wire = wire
        self._folder = folder / name
        self._folder.mkdir()
        self._log = self._folder / "script.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._env: dict[str, str] = {
            **os.environ,
            "COMPTOIR_CACHE_DIR": str(self._folder / "cache"),
            "COMPTOIR_DEVICE": "cpu",
        }

    def start(self, script: str, *options: str, token: Path) -> None:
        """Run head.sh or worker.sh, as a supervisor would."""
        command = [
            *("ip", "netns", "exec", self._wire.namespace(self.name)),
            *("unshare", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child=SIGKILL"),
            *(str(SCRIPTS / script), "--ip", self.address, "--token-file", str(token)),
            *("--temp-dir", str(self._folder / "r"), "--restart", *options),
            *("--", f"--object-store-memory={100 * 1024 * 1024}"),
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=self._env, start_new_session=True
            )

    def call(self, *command: str, env: Mapping[str, str], timeout_s: float = 60) -> str:
        """Run a command beside the script, among its processes; returns what it prints.

        Raises:
            AssertionError: it fails; with its output.
        """
        first = self._first()
        assert first is not None, self.output
        done = subprocess.run(
            ["nsenter", "--target", str(first), "--net", "--pid", "--mount", *command],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**self._env, **env},
            check=False,
        )
        output: str = done.stdout + done.stderr
        assert done.returncode == 0, output
        return output

    def titles(self) -> list[str]:
        """Of all processes of the machine."""
        first = self._first()
        return _titles(os.readlink(f"/proc/{first}/ns/pid")) if first is not None else []

    def listens(self, port: int) -> bool:
        """Whether a process of the machine takes connections on this port."""
        first = self._first()
        if first is None:
            return False
        table = Path(f"/proc/{first}/net/tcp").read_text().splitlines()
        rows = [line.split() for line in table[1:]]
        # 0A: listening.
        return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)

    @property
    def output(self) -> str:
        """What the script has said so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def cut(self) -> None:
        """Pull its cable: nothing arrives any more, and nobody is told."""
        self._wire.set_link(self.name, up=False)

    def mend(self) -> None:
        """Put the cable back."""
        self._wire.set_link(self.name, up=True)

    def stop(self) -> None:
        """End every process of the machine, whatever state it is in."""
        if self._process is None:
            return
        first = self._first()
        space = os.readlink(f"/proc/{first}/ns/pid") if first is not None else None
        # The first process of the machine dies with its parent, and all others with it.
        self._process.kill()
        self._process.wait(timeout=30)
        deadline = time.monotonic() + 20
        while space is not None and _titles(space) and time.monotonic() < deadline:
            time.sleep(0.1)

    def _first(self) -> int | None:
        """The machine's first process, once it is there: the only child of what was started."""
        if self._process is None or self._process.poll() is not None:
            return None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else None


def _titles(space: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "ns" / "pid") == space:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                found.append(b" ".join(words).decode(errors="replace").strip())
        except OSError:
            continue
    return found


def short_folder() -> Path:
    """Ray's sockets lie below it, and their paths may have 107 bytes."""
    return Path(tempfile.mkdtemp(prefix="cpt-"))
