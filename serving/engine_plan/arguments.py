"""Engine arguments against the installed vLLM: names at once, the rest in a process of its own.

Importing vLLM takes ten seconds, so the names are read from its source. Only vLLM itself knows valid values
and combinations: `serving.engine.arguments_probe` asks it.
"""

from __future__ import annotations

import ast
import difflib
import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from serving.catalogue import tiny
from serving.engine_plan.environment import COMMON_ENV, CPU_ENV
from serving.engine_plan.hosted import Hosted
from serving.engine_plan.plan import EnginePlan
from serving.errors import ComptoirError, ConfigError
from serving.own_package import with_own_package

PROBE = "serving.engine.arguments_probe"
_TIMEOUT_S = 180
# Relative to the package: the classes whose fields are the arguments.
_SOURCES: Mapping[str, tuple[str, ...]] = {
    "engine/arg_utils.py": ("EngineArgs", "AsyncEngineArgs"),
    "entrypoints/launchers/cli_args.py": ("BaseFrontendArgs", "FrontendArgs"),
}


@dataclass(frozen=True)
class Question:
    """The probe's question about one model. `folder` holds its config.json, if this machine has it."""

    model_id: str
    device: str
    architecture: str | None
    engine_args: Mapping[str, Any]
    tiny: str | None = None
    folder: str | None = None
    context_tokens: int | None = None
    shape: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Finding:
    """vLLM's verdict on one model. `depth`: how far it could look, `types` or `config`."""

    model_id: str
    depth: str
    key: str | None = None
    problem: str | None = None


def is_installed() -> bool:
    """Whether vLLM is installed on this machine."""
    return find_spec("vllm") is not None


@functools.cache
def known_arguments() -> frozenset[str]:
    """The names that vLLM's engine and server take; empty where vLLM is not installed."""
    spec = find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    root = Path(next(iter(spec.submodule_search_locations)))
    names: set[str] = set()
    for file, classes in _SOURCES.items():
        for node in ast.parse((root / file).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name in classes:
                names |= {
                    one.target.id
                    for one in node.body
                    if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
                }
    return frozenset(name for name in names if not name.startswith("_"))


def check_names(args: Mapping[str, Any]) -> None:
    """Refuse arguments that the installed vLLM does not have. Without one, everything passes.

    Raises:
        ConfigError: `param` is the key; the message has near names.
    """
    known = known_arguments()
    for key in args:
        if not known or key in known:
            continue
        dashed = key.replace("-", "_")
        near = [dashed] if dashed in known else difflib.get_close_matches(key, sorted(known), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "remove it"
        raise ConfigError(
            f"engine_args.{key}: the installed vLLM has no such argument; {hint}",
            param=f"engine_args.{key}",
        )


def question(plan: EnginePlan, one: Hosted) -> Question:
    """The question about a plan and the description that it was checked by."""
    is_tiny = plan.source.startswith(tiny.ID_PREFIX)
    args = {key: value for key, value in plan.engine_args.items() if key != "lora_modules"}
    return Question(
        model_id=plan.model_id,
        device=plan.device,
        architecture=one.spec.architecture if one.spec else None,
        engine_args=args,
        tiny=plan.source[len(tiny.ID_PREFIX) :] if is_tiny else None,
        folder=plan.source if (Path(plan.source) / "config.json").is_file() else None,
        context_tokens=one.spec.context_tokens if one.spec else None,
        shape=None if one.shape is None else asdict(one.shape),
    )


def ask(questions: Sequence[Question]) -> list[Finding]:
    """Let vLLM check; one process for all models, ten seconds and a little per model.

    Raises:
        ComptoirError: vLLM could not be asked.
    """
    env = os.environ | COMMON_ENV | CPU_ENV | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    env |= with_own_package(os.environ)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", PROBE],
            input=json.dumps([asdict(one) for one in questions]),
            env=env,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ComptoirError(f"vLLM did not answer within {_TIMEOUT_S} s") from None
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ComptoirError(f"vLLM could not be asked: {last}")
    return [Finding(**one) for one in json.loads(lines[-1])]
