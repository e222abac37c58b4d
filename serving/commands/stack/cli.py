"""`comptoir up`, `down`, `status`: a whole stack on this machine, in the foreground."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer

from serving.commands.output import note, say
from serving.commands.planning import plan_models
from serving.commands.stack import processes, ray_api
from serving.commands.stack.apart import Stop, run_apart
from serving.commands.stack.hub import HubProbe
from serving.commands.stack.messages import announce_ready, announce_steps
from serving.commands.stack.progress_view import answers, wait_until_ready
from serving.commands.stack.state import StackState
from serving.deployment_file import DeploymentFile, load_deployment_file
from serving.engine.progress import DIRECTORY_VARIABLE
from serving.environment import cluster_environment
from serving.errors import ConfigError, StackError
from serving.settings import ProcessSettings

ConfigArgument = Annotated[
    Path, typer.Argument(help="A Serve config file: see deployments/.", show_default=True)
]
PortOption = Annotated[int | None, typer.Option(help="Port of the endpoint. [env: COMPTOIR_PORT]")]
# How often, and how many times in a row without an answer, before a stack counts as dead.
WATCH_PERIOD_S = 5.0
WATCH_FAILURES = 6
DEFAULT_CONFIG = Path("deployments/local.yaml")


def up(
    config: ConfigArgument = DEFAULT_CONFIG,
    port: PortOption = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [env: COMPTOIR_HOST]")
    ] = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="Seconds to wait for every model.")
    ] = 1800.0,
) -> None:
    """Start a stack on this machine and stay in the foreground; Ctrl-C stops it.

    Example: comptoir up deployments/local.yaml --port 8000
    """
    settings = ProcessSettings.load()
    overrides = {"port": port, "host": host}
    settings = settings.model_copy(update={k: v for k, v in overrides.items() if v is not None})
    file = load_deployment_file(config, settings)
    if not file.models:
        raise ConfigError(
            f"{config}: applications: there is no model to serve", param="applications"
        )
    # A forbidden licence or an unknown entry shows now, not in a minute.
    plan_models(file, settings)
    _require_free(file, settings)
    stack_id = secrets.token_hex(8)

    def work(stop: Stop) -> int:
        state = StackState(
            stack_id=stack_id,
            pid=os.getpid(),
            created=psutil.Process().create_time(),
            host=file.gateway.host,
            port=file.gateway.port,
            dashboard="",
            config=str(config),
        )
        try:
            return _run(file, settings, state, stop, timeout_s)
        finally:
            _tear_down(state, settings, stop)

    def clean() -> None:
        if processes.end_all(stack_id, file.gateway.port):
            note("stopped what was left of the stack")
        left = StackState.read(settings.cache_dir, file.gateway.port)
        if left is not None and left.stack_id == stack_id:
            left.remove(settings.cache_dir)

    if status := run_apart(work, clean):
        raise typer.Exit(status)


def _run(
    file: DeploymentFile,
    settings: ProcessSettings,
    state: StackState,
    stop: Stop,
    timeout_s: float,
) -> int:
    """Run until asked to stop; return the exit status."""
    began = time.monotonic()
    progress = StackState.directory(settings.cache_dir, state.port) / "progress"
    progress.mkdir(parents=True, exist_ok=True)
    for leftover in progress.glob("*.json"):
        leftover.unlink()
    os.environ |= cluster_environment() | {
        processes.STACK_VARIABLE: state.stack_id,
        DIRECTORY_VARIABLE: str(progress),
        "COMPTOIR_CACHE_DIR": str(settings.cache_dir),
        # In the environment, not in the file: deploying the same file again then changes nothing.
        "COMPTOIR_HOST": state.host,
        "COMPTOIR_PORT": str(state.port),
        # Engines and gateway share this machine: nobody else need reach an engine.
        "COMPTOIR_REPLICA_HOST": "127.0.0.1",
    }
    state.write(settings.cache_dir)
    announce_steps(file)
    hub = HubProbe() if settings.probe_hub else None
    dashboard = ray_api.start_ray(state.port)
    # Again: Ray has just put handlers of its own in the place of ours.
    stop.listen()
    state = StackState(**{**vars(state), "dashboard": dashboard})
    state.write(settings.cache_dir)
    if stop.event.is_set():
        return stop.status
    note(f"Ray runs ({time.monotonic() - began:.0f} s)")
    ray_api.deploy(dashboard, file.document)
    wait_until_ready(file, state, progress, stop.event, timeout_s)
    if stop.event.is_set():
        return stop.status
    seconds = time.monotonic() - began
    announce_ready(file, state, seconds, reaches_hub=hub is not None and hub.answer())
    _watch(state, stop.event)
    return 0


def _watch(state: StackState, stop: threading.Event) -> None:
    """Stay until asked to stop; a stack that no longer answers ends with an error, not silently."""
    failures = 0
    while not stop.wait(WATCH_PERIOD_S):
        failures = 0 if answers(state) else failures + 1
        if failures >= WATCH_FAILURES:
            raise StackError(
                f"{state.base_url} has not answered for {failures * WATCH_PERIOD_S:.0f} s; logs are "
                f"under {processes.session_root(state.port)}"
            )


def _require_free(file: DeploymentFile, settings: ProcessSettings) -> None:
    old = StackState.read(settings.cache_dir, file.gateway.port)
    if old is not None:
        if old.is_alive:
            raise StackError(
                f"a stack already runs on port {old.port} (process {old.pid}): use it, stop it with "
                f"`comptoir down --port {old.port}`, or choose another port",
                param="port",
            )
        note(f"cleaning up after a stack on port {old.port} that did not end properly")
        processes.end_all(old.stack_id, old.port)
        old.remove(settings.cache_dir)
    with socket.socket(socket.AF_INET6 if ":" in file.gateway.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((file.gateway.host, file.gateway.port))
        except OSError as error:
            raise StackError(
                f"cannot listen on {file.gateway.host}:{file.gateway.port}: {error.strerror}; "
                "choose another port with --port (or `make serve PORT=...`)",
                param="port",
            ) from None


def _tear_down(state: StackState, settings: ProcessSettings, stop: Stop) -> None:
    note("stopping")
    try:
        ray_api.stop_ray()
    except KeyboardInterrupt:
        note("stopping at once")
    finally:
        stop.deafen()
        processes.end_all(state.stack_id, state.port)
        state.remove(settings.cache_dir)
    note("stopped")


def down(
    port: PortOption = None,
    every: Annotated[bool, typer.Option("--all", help="Stop every stack on this machine.")] = False,
) -> None:
    """Stop a stack on this machine, also one whose foreground process is gone.

    Example: comptoir down --port 8000
    """
    settings = ProcessSettings.load()
    port = port or settings.port
    states = StackState.all(settings.cache_dir)
    if port is not None and not every:
        states = [state for state in states if state.port == port]
    if len(states) > 1 and not every:
        ports = ", ".join(str(state.port) for state in states)
        raise StackError(f"several stacks are running; choose one with --port ({ports}), or --all")
    if not states:
        where = f" on port {port}" if port is not None else ""
        say(f"no stack is running{where}")
        return
    for state in states:
        if state.is_alive:
            os.kill(state.pid, signal.SIGTERM)
            deadline = time.monotonic() + 90
            while state.is_alive and time.monotonic() < deadline:
                time.sleep(0.2)
        processes.end_all(state.stack_id, state.port)
        state.remove(settings.cache_dir)
        say(f"stopped the stack on port {state.port}")
