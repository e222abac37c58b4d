"""`make bench`: Comptoir beside vLLM's own API server, same tiny model, same engine arguments, one run.

The two take turns (A B A B ...), so that a machine whose speed drifts treats them alike; medians and
the ratio are printed and written to bench-results/.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import asdict
from pathlib import Path

import psutil
import yaml

from loadtests.sse_client import Round, burst
from serving.catalogue import tiny
from serving.engine.plan import COMMON_ENV, CPU_ENV
from serving.settings import ProcessSettings

MODEL = "qwen3"
KV_CACHE_BYTES = 256 * 1024 * 1024
MAX_MODEL_LEN = 4096
START_TIMEOUT_S = 300


class Server:
    """A server under test: a process, its address, its memory."""

    def __init__(self, name: str, command: list[str], port: int, env: dict[str, str]) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self._log = tempfile.NamedTemporaryFile(prefix=f"bench-{port}-", suffix=".log")  # noqa: SIM115
        self._process = subprocess.Popen(
            command, env=os.environ | env, stdout=self._log, stderr=subprocess.STDOUT
        )

    def wait_until_ready(self, path: str) -> float:
        """Wait for `path` to answer 200; returns the seconds."""
        began = time.monotonic()
        while True:
            if self._process.poll() is not None or time.monotonic() - began > START_TIMEOUT_S:
                tail = Path(self._log.name).read_text(errors="replace")[-3000:]
                raise SystemExit(f"{self.name} did not start:\n{tail}")
            try:
                with urllib.request.urlopen(self.url + path, timeout=2):  # noqa: S310
                    return time.monotonic() - began
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.5)

    def resident_gib(self) -> float:
        """Memory of the process and everything under it."""
        parent = psutil.Process(self._process.pid)
        total = 0
        for process in [parent, *parent.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue
        return total / 2**30

    def stop(self) -> None:
        """End it and wait."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def vllm_server(model: Path, name: str, env: dict[str, str]) -> Server:
    """vLLM's own API server with the arguments that a Comptoir replica gets."""
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(model), "--served-model-name", MODEL, "--port", str(port)]
    command += ["--host", "127.0.0.1", "--dtype", "bfloat16", "--enforce-eager"]
    command += ["--max-model-len", str(MAX_MODEL_LEN), "--disable-uvicorn-access-log"]
    command += ["--kv-cache-memory-bytes", str(KV_CACHE_BYTES), "--load-format", "safetensors"]
    command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    command += ["--enable-prompt-tokens-details"]
    return Server(name, command, port, COMMON_ENV | CPU_ENV | env)


def comptoir_server(folder: Path) -> Server:
    """A whole Comptoir stack with the same model."""
    port = free_port()
    model = {
        "id": MODEL,
        "catalogue": "tiny-qwen3",
        "kv_cache_gib": KV_CACHE_BYTES / 2**30,
        "engine_args": {"max_model_len": MAX_MODEL_LEN},
    }
    applications = [
        {"name": "gateway", "import_path": "serving.app:build_gateway", "args": {}},
        {"name": MODEL, "import_path": "serving.app:build_model", "args": model},
    ]
    document = {
        "proxy_location": "Disabled",
        "applications": [application | {"route_prefix": None} for application in applications],
    }
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", "serving.cli", "up", str(path), "--port", str(port)]
    return Server("Comptoir", command, port, {"COMPTOIR_DEVICE": "cpu"})


def median_of(rounds: list[Round]) -> dict[str, float]:
    """The median of each figure."""
    return {
        name: statistics.median(float(asdict(each)[name]) for each in rounds)
        for name in asdict(rounds[0])
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--streams", type=int, default=64, help="parallel streams")
    parser.add_argument("--tokens", type=int, default=64, help="tokens per stream")
    parser.add_argument("--rounds", type=int, default=5, help="bursts per server")
    parser.add_argument("--requests", type=int, default=256, help="requests per burst")
    options = parser.parse_args()
    model = tiny.build(tiny.family("qwen3"), ProcessSettings.load().cache_dir)
    with tempfile.TemporaryDirectory() as folder:
        # On a CPU, vLLM gives the worker a process of its own unless it is told otherwise; a Comptoir
        # replica does not. The first row has the same layout as the replica.
        alike = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        servers = [
            (vllm_server(model, "vLLM, same layout", alike), "/health"),
            (vllm_server(model, "vLLM as it comes", {}), "/health"),
            (comptoir_server(Path(folder)), "/ready"),
        ]
        try:
            for server, path in servers:
                print(f"{server.name}: ready after {server.wait_until_ready(path):.0f} s")
            results = measure([server for server, _ in servers], options)
        finally:
            for server, _ in servers:
                server.stop()
    report(results, options)


def measure(
    servers: list[Server], options: argparse.Namespace
) -> dict[str, dict[str, dict[str, float]]]:
    """Medians per server, at one stream and at many."""
    rounds: dict[tuple[str, int], list[Round]] = {}
    for number in range(options.rounds + 1):
        for server in servers:
            for streams, requests in ((1, 16), (options.streams, options.requests)):
                result = asyncio.run(
                    burst(
                        server.url, MODEL, streams=streams, requests=requests, tokens=options.tokens
                    )
                )
                if number:  # the first round warms up
                    rounds.setdefault((server.name, streams), []).append(result)
    return {
        server.name: {
            str(streams): median_of(rounds[server.name, streams])
            for streams in (1, options.streams)
        }
        | {"memory": {"resident_gib": server.resident_gib()}}
        for server in servers
    }


def report(results: dict[str, dict[str, dict[str, float]]], options: argparse.Namespace) -> None:
    """Print the table and write it down."""
    baseline = next(iter(results))
    print(f"\n{options.tokens} tokens, {options.rounds} rounds, medians; ratio to {baseline}")
    for streams in ("1", str(options.streams)):
        print(f"\n{streams} stream(s)")
        for name, figures in results.items():
            cells = [
                f"{figure} {value:.1f} ({value / (results[baseline][streams][figure] or 1):.2f})"
                for figure, value in figures[streams].items()
                if figure != "errors"
            ]
            print(f"  {name:18} " + "  ".join(cells) + f"  errors {figures[streams]['errors']:.0f}")
    for name, figures in results.items():
        print(f"{name:20} {figures['memory']['resident_gib']:.2f} GiB resident")
    folder = Path("bench-results")
    folder.mkdir(exist_ok=True)
    path = folder / f"bench-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps({"options": vars(options), "results": results}, indent=2))
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
