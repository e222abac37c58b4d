"""The surroundings of Ray on this machine: environment, token, a dashboard that contacts nobody."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from serving.commands.stack.processes import SOCKET_BYTES
from serving.http_client import without_proxies
from serving.own_package import other_package, with_own_package

# Where Python's multiprocessing listens, below TMPDIR.
_PYTHONS_SOCKET = "/pymp-abcdefgh/listener-abcdefgh"


def surroundings(session: Path) -> dict[str, str]:
    """Variables for Ray's processes beyond `comptoir env`, because all of them run on this machine."""
    found = without_proxies(os.environ, *_own_addresses()) | with_own_package(os.environ)
    # vLLM's sockets, whose paths must be as short as Ray's.
    found["VLLM_RPC_BASE_PATH"] = str(session)
    if len(os.fsencode(tempfile.gettempdir())) + len(_PYTHONS_SOCKET) > SOCKET_BYTES:
        found["TMPDIR"] = str(session)
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        # torch and others ask for a name, and fail where the user has none.
        found["USER"] = found["LOGNAME"] = os.environ.get("USER") or f"uid{os.getuid()}"
        found["HOME"] = os.environ.get("HOME") or str(session)
    return found


def _own_addresses() -> list[str]:
    return [
        one.address.partition("%")[0]
        for ones in psutil.net_if_addrs().values()
        for one in ones
        if one.family in (socket.AF_INET, socket.AF_INET6)
    ]


@contextlib.contextmanager
def quiet_dashboard(session: Path) -> Iterator[None]:
    """Have Ray's dashboard start in a home of its own, and elsewhere if need be.

    With statistics off, too, it asks the metadata services of three clouds where it is, unless a file in the
    home folder says so. And what Serve starts looks for modules where the dashboard was started, before
    everywhere else: in a folder with another `serving`, it would run that.
    """
    from ray._private import ray_constants, services

    home = session / "home"
    home.mkdir()
    (home / "ray_bootstrap_config.yaml").write_text("{}\n")
    other = other_package(Path.cwd())
    start = services.start_ray_process

    def started(command: list[str], process_type: str, *args: Any, **kwargs: Any) -> Any:
        if process_type == ray_constants.PROCESS_TYPE_DASHBOARD:
            kwargs["env_updates"] = {**(kwargs.get("env_updates") or {}), "HOME": str(home)}
            if other is not None:
                kwargs["cwd"] = str(home)
        return start(command, process_type, *args, **kwargs)

    services.start_ray_process = started
    try:
        yield
    finally:
        services.start_ray_process = start


def have_token(session: Path) -> None:
    """Ray's token, in a file that nobody else can read; Ray itself would make it for all to read."""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    try:
        path = Path.home() / ".ray" / "auth_token"
        _make_token(path)
    except (OSError, RuntimeError):
        # No home, or one that cannot be written to.
        path = session / "auth_token"
        _make_token(path)
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)


def _make_token(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
