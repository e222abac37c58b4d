"""The progress of a starting replica: small files that `comptoir up` watches on the same machine."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Literal

DIRECTORY_VARIABLE = "COMPTOIR_PROGRESS_DIR"
Stage = Literal["starting", "importing", "loading", "ready", "failed"]


def report(model_id: str, stage: Stage) -> None:
    """Write the stage, if a command on this machine wants it; never fails a replica."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    if not directory or not os.path.isdir(directory):
        return
    path = Path(directory) / f"{os.getpid()}.json"
    draft = path.with_suffix(".tmp")
    try:
        draft.write_text(json.dumps({"model": model_id, "stage": stage, "at": time.time()}))
        draft.replace(path)
    except OSError:
        return


def read(directory: Path) -> dict[str, str]:
    """The latest stage of each model, by model id."""
    latest: dict[str, tuple[float, str]] = {}
    for path in directory.glob("*.json"):
        try:
            entry = json.loads(path.read_text())
            model, stage, at = str(entry["model"]), str(entry["stage"]), float(entry["at"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if model not in latest or at > latest[model][0]:
            latest[model] = (at, stage)
    return {model: stage for model, (_, stage) in latest.items()}
