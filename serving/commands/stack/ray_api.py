"""Starts a local Ray with Serve and deploys to it, the same way as `serve deploy` does."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving import http_client
from serving.commands.stack import processes
from serving.commands.stack.surroundings import have_token, quiet_dashboard, surroundings
from serving.errors import ConfigError, StackError

# The first request starts Serve's controller: seconds, but minutes on a machine that has other things to do.
DEPLOY_TIMEOUT_S = 180
# Ray's schema of the request: https://docs.ray.io/en/latest/serve/api/index.html#serve-rest-api
APPLICATIONS = "/api/serve/applications/"


def start_ray(port: int) -> str:
    """Start Ray on this machine, reachable from this machine only; returns the dashboard's address.

    Raises:
        StackError: Ray does not start.
    """
    session = _private_folder(processes.session_root(port))
    have_token(session)
    os.environ |= surroundings(session)
    import ray

    try:
        with quiet_dashboard(session):
            context = ray.init(
                address="local",
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                _node_ip_address="127.0.0.1",
                _temp_dir=str(session / "ray"),
                object_store_memory=128 * 1024 * 1024,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (RuntimeError, OSError, ValueError, TimeoutError) as error:
        raise StackError(f"Ray does not start: {error}") from None
    if not context.dashboard_url:
        raise StackError(f"Ray's dashboard does not start; its logs are under {session}")
    return f"http://{context.dashboard_url}"


def _private_folder(path: Path) -> Path:
    """Create the folder for this user alone: Ray makes its files inside readable for everyone.

    Raises:
        StackError: something at that name belongs to somebody else.
    """
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise StackError(f"{path} is not a folder of yours; remove it or choose another port")
        # Logs of the last run on this port; nothing of it runs any more.
        shutil.rmtree(path)
    path.mkdir(mode=0o700)
    return path


def stop_ray() -> None:
    """Stop Serve and Ray, if this process started them."""
    import ray
    from ray import serve

    if ray.is_initialized():
        try:
            serve.shutdown()
        finally:
            ray.shutdown()


def deploy(dashboard: str, document: Mapping[str, Any]) -> None:
    """Submit a Serve config.

    Raises:
        ConfigError: Serve refuses the document.
        StackError: the dashboard does not answer.
    """
    try:
        answer = http_client.ask(
            dashboard + APPLICATIONS,
            method="PUT",
            body=json.dumps(document, default=str).encode(),
            headers={"Content-Type": "application/json"} | authorization(),
            timeout_s=DEPLOY_TIMEOUT_S,
            is_inside=True,
        )
    except (http_client.Unreachable, http_client.NotHttp) as error:
        raise StackError(f"Ray's dashboard does not answer: {error}") from None
    if not answer.is_good:
        text = answer.body.decode(errors="replace")
        raise ConfigError(f"Ray Serve refuses the file: {_last_line(text)}", param="config")


def applications(dashboard: str) -> dict[str, dict[str, Any]]:
    """Serve's applications by name, as its REST API reports them; empty while it does not answer."""
    try:
        answer = http_client.ask(
            dashboard + APPLICATIONS, headers=authorization(), timeout_s=10, is_inside=True
        )
        found = json.loads(answer.body) if answer.is_good else {}
    except (http_client.Unreachable, http_client.NotHttp, ValueError):
        return {}
    return dict(found.get("applications", {}))


def authorization() -> dict[str, str]:
    """Ray's token, from where Ray itself looks: https://docs.ray.io/en/latest/ray-security/token-auth.html."""
    token = os.environ.get("RAY_AUTH_TOKEN")
    if not token:
        path = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
        try:
            token = Path(path).expanduser().read_text().strip()
        # RuntimeError: there is no home.
        except (OSError, RuntimeError):
            return {}
    return {"Authorization": f"Bearer {token}"}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "no reason given"
