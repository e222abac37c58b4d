"""The compared servers, and how each is started with the same model and engine arguments."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from loadtests.processes.free_ports import free_port
from serving.engine_plan.environment import COMMON_ENV, CPU_ENV
from serving.http_client import without_proxies
from serving.settings import hash_key

MODEL = "qwen3"
BASELINE = "vllm"
COMPTOIR = "comptoir"
KV_CACHE_BYTES = 256 * 1024 * 1024
MAX_MODEL_LEN = 4096
# vLLM's default on CPUs is 128: half of 256 streams would wait in every engine alike.
MAX_NUM_SEQS = 256

# What every engine gets; the names are those of vLLM's EngineArgs.
ENGINE_ARGS: Mapping[str, Any] = {
    "dtype": "bfloat16",
    "enforce_eager": True,
    "max_model_len": MAX_MODEL_LEN,
    "max_num_seqs": MAX_NUM_SEQS,
    "kv_cache_memory_bytes": KV_CACHE_BYTES,
    "load_format": "safetensors",
    "enable_auto_tool_choice": True,
    "tool_call_parser": "hermes",
    "enable_prompt_tokens_details": True,
    "enable_log_requests": False,
}
# The same environment for all; what of it is a file of Comptoir's is left out.
ENV = {
    name: value
    for name, value in (COMMON_ENV | CPU_ENV).items()
    if name != "VLLM_LOGGING_CONFIG_PATH"
} | {"HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0", **without_proxies(os.environ)}
# vLLM would load Comptoir's plugins in every process of this virtual environment.
NO_PLUGINS = {"VLLM_PLUGINS": ""}


@dataclass(frozen=True)
class Place:
    """The inputs for the start of a contender."""

    model: Path
    folder: Path
    port: int
    key: str


@dataclass(frozen=True)
class Launch:
    """A command and its environment."""

    command: list[str]
    env: Mapping[str, str]


@dataclass(frozen=True)
class Contender:
    """A server: its name on the command line, its title in tables, how to start it."""

    name: str
    title: str
    launch: Callable[[Place], Launch]


def _vllm(place: Place, *, env: Mapping[str, str]) -> Launch:
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(place.model), "--served-model-name", MODEL]
    command += ["--host", "127.0.0.1", "--port", str(place.port), "--disable-uvicorn-access-log"]
    for name, value in ENGINE_ARGS.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            command.append(flag)
        elif value is not False:
            command += [flag, str(value)]
    return Launch(command, ENV | NO_PLUGINS | dict(env))


def _ray(place: Place, *, env: Mapping[str, str]) -> Launch:
    command = [sys.executable, "-m", "loadtests.bench.compare.ray_server", MODEL, str(place.model)]
    command += [str(place.port), str(place.folder), json.dumps(dict(ENGINE_ARGS))]
    proxy = place.folder / "haproxy"
    # HAProxy's own files and ports are fixed otherwise, and would be those of any other Ray here.
    own = {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(proxy / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(proxy / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(proxy),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(proxy / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    }
    return Launch(command, ENV | NO_PLUGINS | own | dict(env))


def _comptoir(place: Place) -> Launch:
    model = {
        "id": MODEL,
        "catalogue": f"tiny-{MODEL}",
        "kv_cache_gib": KV_CACHE_BYTES / 2**30,
        "engine_args": {"max_model_len": MAX_MODEL_LEN, "max_num_seqs": MAX_NUM_SEQS},
    }
    gateway = {"keys": [{"name": "bench", "hash": hash_key(place.key)}]}
    document = {
        "proxy_location": "Disabled",
        "applications": [
            {
                "name": "gateway",
                "import_path": "serving.app:build_gateway",
                "route_prefix": None,
                "args": gateway,
            },
            {
                "name": MODEL,
                "import_path": "serving.app:build_model",
                "route_prefix": None,
                "args": model,
            },
        ],
    }
    path = place.folder / "bench.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    command = [sys.executable, "-m", "serving.cli", "up", str(path), "--port", str(place.port)]
    return Launch(command, {"COMPTOIR_DEVICE": "cpu"})


TUNED = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"}
DIRECT = TUNED | {"RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1"}

_ALL = (
    # On a CPU, vLLM gives the worker a process of its own unless it is told otherwise; a Comptoir
    # replica does not. The first has the same processes as the replica.
    Contender(
        BASELINE,
        "vLLM's server, same processes",
        partial(_vllm, env={"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}),
    ),
    Contender("vllm-default", "vLLM's server as it comes", partial(_vllm, env={})),
    Contender("ray", "Ray Serve LLM as it comes", partial(_ray, env={})),
    Contender("ray-tuned", "Ray Serve LLM tuned", partial(_ray, env=TUNED)),
    Contender("ray-direct", "Ray Serve LLM direct streaming", partial(_ray, env=DIRECT)),
    Contender(COMPTOIR, "Comptoir, keys on", _comptoir),
)
CONTENDERS: Mapping[str, Contender] = {contender.name: contender for contender in _ALL}
RAY_PATHS = ("ray", "ray-tuned", "ray-direct")
