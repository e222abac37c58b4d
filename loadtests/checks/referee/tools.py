"""The same requests by three tools at a running stack, in turn: counts must be equal, times nearly.

GuideLLM needs packages that Comptoir does not: it lives in an environment of its own, `.venv-referee`, which
is made when it is first needed and borrows PyTorch and transformers from this one.
"""

from __future__ import annotations

import json
import os
import statistics as python_statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from loadtests.bench.compare.client_process import VllmClient
from loadtests.checks.referee.truth import Check
from loadtests.generator.launch import run
from loadtests.run.record import read_records
from loadtests.workload.prompts import TINY, load_prompts
from loadtests.workload.scenario import Scenario
from serving.catalogue import tiny
from serving.errors import ComptoirError
from serving.http_client import without_proxies
from serving.settings import ProcessSettings

GUIDELLM = "guidellm==0.8.1"
REQUESTS, STREAMS, INPUT, OUTPUT = 128, 8, 64, 64
WITHIN = 0.05
ROOT = Path(__file__).resolve().parents[3]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Counted:
    """A tool's figures of one burst."""

    requests: int
    failed: int
    output_tokens: int
    ttft_p50_ms: float
    e2e_p50_ms: float


@dataclass(frozen=True)
class Burst:
    """The same for every tool; prompts are new each time, so that no cache knows them."""

    url: str
    model: str
    tokenizer: Path
    prompts: Sequence[str]


def compare_tools(url: str, model: str, rounds: int, say: Say) -> list[Check]:
    """All tools in turn, several times; medians are compared."""
    tokenizer = tiny.build(tiny.family(model), ProcessSettings.load().cache_dir)
    prompts = load_prompts(f"{TINY}{model}")
    guidellm, vllm = guidellm_command(say), VllmClient()
    found: dict[str, list[Counted]] = {"vllm": [], "guidellm": [], "comptoir": []}
    for turn in range(rounds):
        for number, name in enumerate(found):
            first = (turn * len(found) + number) * REQUESTS + 1_000_000
            texts = [prompts.text(INPUT, first + one) for one in range(REQUESTS)]
            burst = Burst(url, model, tokenizer, texts)
            say(f"round {turn + 1} of {rounds}: {name}")
            with tempfile.TemporaryDirectory(prefix="referee-") as folder:
                if name == "vllm":
                    found[name].append(by_vllm(vllm, burst))
                elif name == "guidellm":
                    found[name].append(by_guidellm(guidellm, burst, Path(folder)))
                else:
                    found[name].append(by_comptoir(burst, Path(folder)))
    return _checks(found)


def _checks(found: dict[str, list[Counted]]) -> list[Check]:
    ours = found["comptoir"]
    checks = []
    for name in ("vllm", "guidellm"):
        for what in ("requests", "failed", "output_tokens"):
            mine, theirs = (sum(getattr(one, what) for one in some) for some in (ours, found[name]))
            checks.append(
                Check(
                    f"{what.replace('_', ' ')} beside {name}",
                    str(mine),
                    str(theirs),
                    mine == theirs,
                )
            )
    for what in ("ttft_p50_ms", "e2e_p50_ms"):
        mine, theirs, third = (
            python_statistics.median(getattr(one, what) for one in found[name])
            for name in ("comptoir", "vllm", "guidellm")
        )
        label = what.split("_")[0].upper()
        checks.append(
            Check(
                f"{label} p50 beside vllm (guidellm says {third:.1f} ms)",
                f"{mine:.1f} ms",
                f"{theirs:.1f} ms ± {100 * WITHIN:.0f} %",
                abs(mine / theirs - 1) <= WITHIN,
            )
        )
    return checks


def by_vllm(client: VllmClient, burst: Burst) -> Counted:
    """`vllm bench serve`, its module form."""
    figures = client.measure(
        {
            "address": urlsplit(burst.url).netloc,
            "headers": {},
            "model": burst.model,
            "tokenizer": str(burst.tokenizer),
            "streams": STREAMS,
            "tokens": OUTPUT,
            "stream": True,
            "prompts": list(burst.prompts),
        }
    )
    failed = int(figures["errors"])
    return Counted(
        len(burst.prompts) - failed,
        failed,
        int(figures["tokens"]),
        figures["ttft_p50_ms"],
        figures["latency_p50_ms"],
    )


def by_comptoir(burst: Burst, folder: Path) -> Counted:
    """`comptoir load run` with prompts of one's own."""
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": one}) + "\n" for one in burst.prompts))
    scenario = Scenario.model_validate(
        {
            "name": "referee",
            "target": {"url": burst.url},
            "classes": [
                {
                    "name": "all",
                    "model": burst.model,
                    "prompts": str(path),
                    "output_tokens": OUTPUT,
                    "think_s": 0,
                }
            ],
            "arrivals": {"kind": "closed", "users": STREAMS, "spawn_per_s": 1000},
            "duration_s": 600,
            "warmup_s": 0,
            "max_requests": len(burst.prompts),
        }
    )
    run(scenario, folder / "run")
    records = list(read_records(folder / "run"))
    good = [one for one in records if one.is_ok]
    ttfts = [one.ttft_s for one in good if one.ttft_s is not None]
    return Counted(
        len(good),
        len(records) - len(good),
        sum(one.output_tokens for one in good),
        1000 * python_statistics.median(ttfts),
        1000 * python_statistics.median(one.e2e_s for one in good),
    )


def by_guidellm(command: str, burst: Burst, folder: Path) -> Counted:
    """GuideLLM's command."""
    data, out = folder / "data.jsonl", folder / "report.json"
    rows = [{"prompt": one, "output_tokens_count": OUTPUT} for one in burst.prompts]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [
        *("--backend", f"kind=openai_http,target={burst.url},model={burst.model}"),
        *("--profile", f"kind=concurrent,streams={STREAMS}"),
        *("--constraint", f"kind=max_requests,count={len(rows)}"),
        *("--data", f"kind=json_file,path={data}"),
        *("--tokenizer", f"kind=huggingface_auto,model={burst.tokenizer}"),
        *("--output", f"kind=json,path={out}", "--disable-console"),
    ]
    done = subprocess.run(
        [command, "run", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | without_proxies(os.environ),
    )
    if not out.exists():
        raise ComptoirError(f"GuideLLM failed: {(done.stderr or done.stdout)[-500:]}")
    metrics = json.loads(out.read_text())["benchmarks"][0]["metrics"]
    totals = metrics["request_totals"]
    return Counted(
        totals["successful"],
        totals["errored"] + totals["incomplete"],
        int(metrics["output_token_count"]["successful"]["total_sum"]),
        metrics["time_to_first_token_ms"]["successful"]["median"],
        1000 * metrics["request_latency"]["successful"]["median"],
    )


def guidellm_command(say: Say) -> str:
    """The path of GuideLLM's command, installed if it is not there.

    Raises:
        ComptoirError: it cannot be installed.
    """
    environment = ROOT / ".venv-referee"
    command = environment / "bin" / "guidellm"
    if command.exists():
        return str(command)
    say(f"installing {GUIDELLM} into {environment.name}")
    done = subprocess.run([sys.executable, "-m", "venv", str(environment)], check=False)
    if done.returncode == 0:
        paths = {"base": str(environment), "platbase": str(environment)}
        library = Path(sysconfig.get_path("purelib", vars=paths))
        (library / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        install = [str(environment / "bin" / "pip"), "install", "--quiet", GUIDELLM]
        done = subprocess.run(install, check=False)
    if not command.exists():
        raise ComptoirError(f"{GUIDELLM} could not be installed (pip's status {done.returncode})")
    return str(command)
