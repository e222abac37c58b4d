"""Shows the progress of each model while a stack starts, and fails early when one cannot start."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from rich.live import Live
from rich.table import Table

from serving import api, http_client
from serving.commands.output import errors, note
from serving.commands.stack import ray_api
from serving.commands.stack.state import StackState
from serving.deployment_file import DeploymentFile
from serving.engine import progress
from serving.errors import StackError

POLL_S = 0.5
# In a log, too, one can see that it goes on.
QUIET_S = 30.0


def wait_until_ready(
    file: DeploymentFile,
    state: StackState,
    progress_dir: Path,
    stop: threading.Event,
    timeout_s: float,
) -> None:
    """Return when every model with min_replicas >= 1 answers, or when `stop` is set.

    Raises:
        StackError: an application failed, or the time is over.
    """
    wanted = {model.id for model in file.models if model.replicas.min >= 1}
    began, said = time.monotonic(), 0.0
    shown: dict[str, str] = {}
    with Live(console=errors, transient=True, auto_refresh=False) as live:
        while not stop.is_set():
            seconds = time.monotonic() - began
            applications = ray_api.applications(state.dashboard)
            _raise_if_failed(applications, file)
            listens, ready = _ready_models(state, wanted)
            stages = progress.read(progress_dir)
            now = {
                model: "ready" if model in ready else _before_ready(stages.get(model))
                for model in sorted(wanted)
            }
            if errors.is_terminal:
                live.update(_table(now, seconds), refresh=True)
            changed = {model: stage for model, stage in now.items() if shown.get(model) != stage}
            _note_changes(changed, applications, seconds)
            shown = now
            if changed:
                said = seconds
            elif not errors.is_terminal and seconds - said >= QUIET_S:
                said = seconds
                waiting = [f"{model} ({stage})" for model, stage in now.items() if stage != "ready"]
                note(f"{seconds:5.0f} s  still waiting for {', '.join(waiting) or 'the endpoint'}")
            if listens and wanted <= ready:
                return
            if seconds > timeout_s:
                late = ", ".join(f"{m} ({s})" for m, s in now.items() if s != "ready")
                raise StackError(f"not ready after {timeout_s:.0f} s: {late}")
            stop.wait(POLL_S)


def _note_changes(
    changed: dict[str, str], applications: dict[str, dict[str, Any]], seconds: float
) -> None:
    """What the table on a terminal does not say, or nobody sees."""
    for model, stage in changed.items():
        if stage == "failed":
            # Serve tries three times before it gives up: say why at the first.
            note(f"{model}: {reason(applications.get(model, {}))}; trying again")
        if not errors.is_terminal:
            note(f"{seconds:5.0f} s  {model}: {stage}")


def _before_ready(stage: str | None) -> str:
    # The replica says `ready` when its engine runs; until the gateway has found it, it is not.
    return "connecting" if stage == "ready" else stage or "starting"


def _table(stages: dict[str, str], seconds: float) -> Table:
    table = Table(title=f"starting models, {seconds:.0f} s", title_justify="left", box=None)
    for model, stage in stages.items():
        colour = {"ready": "green", "failed": "red"}.get(stage, "yellow")
        table.add_row(f"  {model}", f"[{colour}]{stage}[/{colour}]")
    return table


def _raise_if_failed(applications: dict[str, dict[str, Any]], file: DeploymentFile) -> None:
    for name, application in applications.items():
        if application.get("status") == "DEPLOY_FAILED":
            raise StackError(f"{name} cannot be started: {reason(application)}")


def reason(application: dict[str, Any]) -> str:
    """The last line with content: Serve puts whole tracebacks into its message."""
    texts = [str(application.get("message", ""))]
    texts += [str(d.get("message", "")) for d in (application.get("deployments") or {}).values()]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line]
    return (telling or lines or ["no reason given"])[-1][:2000]


def answers(state: StackState) -> bool:
    """Whether the endpoint answers at all."""
    try:
        return http_client.ask(state.base_url + api.HEALTH, timeout_s=5, is_inside=True).is_good
    except (http_client.Unreachable, http_client.NotHttp):
        return False


def _ready_models(state: StackState, wanted: set[str]) -> tuple[bool, set[str]]:
    """Whether the endpoint answers, and which models it says are ready (with keys: all or none)."""
    try:
        # With the status of an error, too, it says which models there are.
        answer = http_client.ask(state.base_url + api.READY + "?all=1", timeout_s=5, is_inside=True)
        body = json.loads(answer.body)
    except (http_client.Unreachable, http_client.NotHttp, ValueError):
        return False, set()
    models = body.get("models")
    if models is None:
        return True, wanted if body.get("ready") else set()
    return True, {name for name, how in models.items() if how == "ready"}
