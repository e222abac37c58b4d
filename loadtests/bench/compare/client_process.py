"""The clients, in one process for the whole run: importing vLLM's takes longer than measuring with it.

Reads one job per line from stdin (JSON) and answers each with one line.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import uvloop

from loadtests.bench import sse_client
from serving import api


class VllmClient:
    """`vllm bench serve`, called as its command line would call it."""

    def __init__(self) -> None:
        from vllm.benchmarks import serve
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        self._serve = serve
        self._parser = FlexibleArgumentParser()
        serve.add_cli_args(self._parser)

    def measure(self, job: Mapping[str, Any]) -> dict[str, float]:
        """Measure one burst; the figures have our names."""
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            path = Path(folder) / "prompts.jsonl"
            lines = [json.dumps({"prompt": prompt}) for prompt in job["prompts"]]
            path.write_text("\n".join(lines), encoding="utf-8")
            options = self._parser.parse_args(self._arguments(job, path))
            result = asyncio.run(self._serve.main_async(options))
        return self._figures(result, len(job["prompts"]))

    def _arguments(self, job: Mapping[str, Any], path: Path) -> list[str]:
        arguments = ["--backend", "openai-chat", "--endpoint", api.CHAT]
        arguments += ["--base-url", f"http://{job['address']}"]
        arguments += ["--model", job["tokenizer"], "--served-model-name", job["model"]]
        arguments += ["--dataset-name", "custom", "--dataset-path", str(path)]
        arguments += [
            "--disable-shuffle",
            "--skip-chat-template",
            "--output-len",
            str(job["tokens"]),
        ]
        arguments += ["--num-prompts", str(len(job["prompts"])), "--ignore-eos"]
        arguments += ["--max-concurrency", str(job["streams"]), "--temperature", "0"]
        arguments += ["--metric-percentiles", "50,99", "--percentile-metrics", "ttft,tpot,itl,e2el"]
        arguments += ["--disable-tqdm", "--ready-check-timeout-sec", "0"]
        for name, value in job["headers"].items():
            arguments += ["--header", f"{name}={value}"]
        return arguments

    @staticmethod
    def _figures(result: Mapping[str, Any], requests: int) -> dict[str, float]:
        found = {
            "requests_per_s": result["request_throughput"],
            "tokens_per_s": result["output_throughput"],
            "tokens": result["total_output_tokens"],
            "errors": requests - result["completed"],
            "seconds": result["duration"],
            "tpot_p50_ms": result["p50_tpot_ms"],
        }
        for ours, theirs in (("latency", "e2el"), ("ttft", "ttft"), ("itl", "itl")):
            for percent in (50, 99):
                found[f"{ours}_p{percent}_ms"] = result[f"p{percent}_{theirs}_ms"]
        return {name: float(value) for name, value in found.items()}


def _own(job: Mapping[str, Any]) -> dict[str, float]:
    burst = sse_client.Burst(
        address=job["address"],
        model=job["model"],
        prompts=job["prompts"],
        streams=job["streams"],
        tokens=job["tokens"],
        stream=job["stream"],
        headers=job["headers"],
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(sse_client.run(burst))


def serve(jobs: TextIO, answers: TextIO, *, with_vllm: bool) -> None:
    """Do one job after another until there are no more."""
    vllm = VllmClient() if with_vllm else None
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in jobs:
        job = json.loads(line)
        try:
            figures = vllm.measure(job) if vllm and job["client"] == "vllm" else _own(job)
            answer: dict[str, Any] = {"figures": figures}
        except (OSError, ValueError, ArithmeticError, LookupError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def main() -> None:
    """Keep stdout for answers: what vLLM prints goes to the log."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # No command for people: the benchmark starts it, with this word or none.
    serve(sys.stdin, answers, with_vllm="--with-vllm" in sys.argv)


if __name__ == "__main__":
    main()
