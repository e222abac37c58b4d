"""Real Locust at the reference server: alone, over several processes, with its web UI, and stopped early."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from loadtests.plan.sweeps import read_sweep
from loadtests.processes.free_ports import free_port
from loadtests.reference import Running, running
from loadtests.run.record import read_records
from serving.errors import ConfigError

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(ttft_ms=30, itl_ms=5) as found:
        yield found


def scenario(server: Running, folder: Path, **keys: Any) -> Path:
    document = {
        "name": "test",
        "target": {"url": server.url},
        "classes": [
            {
                "name": "talk",
                "kind": "multi_turn",
                "turns": 2,
                "think_s": 0.1,
                "model": "reference",
            },
            {"name": "whole", "model": "reference", "stream": False, "tenant": "other"},
        ],
        "arrivals": {"rate_per_s": 20},
        "duration_s": 4,
        "warmup_s": 0.5,
        "drain_s": 5,
        # Other tests may run beside this one.
        "validity": {"max_send_lag_p99_ms": 2000, "max_loop_lag_p99_ms": 2000},
    }
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump(document | keys))
    return path


def command(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "serving.cli", "load", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def load(*arguments: str) -> tuple[int, str, str]:
    child = command(*arguments)
    out, err = child.communicate(timeout=120)
    return child.returncode, out, err


@pytest.mark.parametrize("processes", [1, 2])
def test_every_request_of_the_plan_is_in_the_records_and_at_the_server(
    server: Running, tmp_path: Path, processes: int
) -> None:
    server.forget()
    run = tmp_path / "run"
    code, out, err = load(
        "run", str(scenario(server, tmp_path)), "--out", str(run), "--processes", str(processes)
    )
    assert code == 0, err
    records = list(read_records(run))
    truth = server.truth().values()
    assert len(records) == len(truth) > 60
    assert sum(one.output_tokens for one in records) == sum(one.output_tokens for one in truth)
    assert {one.worker for one in records} == set(range(processes))
    assert {one.error for one in records} == {""}
    first_turns = sorted(one.conversation for one in records if one.turn == 0)
    assert first_turns == list(range(len(first_turns)))
    summary = json.loads((run / "summary.json").read_text())
    assert summary["valid"]
    assert {(one["class"], one["tenant"]) for one in summary["groups"]} == {
        ("talk", "default"),
        ("whole", "other"),
    }
    assert "requests answered" in out
    for name in ("report.html", "latency.png", "records.parquet", "lag.jsonl", "metrics.jsonl"):
        assert (run / name).stat().st_size > 0, name
    code, _, err = load("run", str(scenario(server, tmp_path)), "--out", str(run))
    assert code == 2
    assert "holds a run already" in err


def test_any_endpoint_is_asked_for_the_model_and_the_lengths_of_the_command_line(
    server: Running, tmp_path: Path
) -> None:
    path, run = scenario(server, tmp_path, target={}, duration_s=2), tmp_path / "run"
    options = ["--model", "theirs", "--input", "40", "--output", "7", "--out", str(run)]
    code, _, err = load("run", str(path), "--url", f"{server.url}/v1", *options)
    assert code == 0, err
    records = list(read_records(run))
    assert {one.model for one in records} == {"theirs"}
    assert {one.output_tokens for one in records} == {7}
    # Without a tokenizer a prompt is about as long as asked for; other turns repeat those before.
    assert all(20 < one.prompt_tokens < 80 for one in records if one.turn == 0)


def test_the_key_goes_with_every_request_and_into_no_file(tmp_path: Path) -> None:
    seen: set[str | None] = set()

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.add(self.headers["authorization"])
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(401)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        url, run = f"http://127.0.0.1:{other.server_port}", tmp_path / "run"
        there = Running(url, 0)
        path = scenario(there, tmp_path, duration_s=1, warmup_s=0.1)
        code, out, err = load("run", str(path), "--key", "sk-canary", "--out", str(run))
        other.shutdown()
    assert code == 1
    assert "--model, --key and --key-env say what to ask for" in " ".join(err.split())
    assert seen == {"Bearer sk-canary"}
    written = b"".join(one.read_bytes() for one in run.rglob("*") if one.is_file())
    assert b"sk-canary" not in written + out.encode() + err.encode()


@pytest.mark.parametrize(("options", "code"), [((), 1), (("--require-slo",), 5)])
def test_a_run_at_a_server_that_is_not_there_says_so(
    server: Running, tmp_path: Path, options: tuple[str, ...], code: int
) -> None:
    port = free_port()
    path = scenario(server, tmp_path, duration_s=1, warmup_s=0.1)
    run = tmp_path / "run"
    ended, out, err = load(
        "run", str(path), "--url", f"http://127.0.0.1:{port}", "--out", str(run), *options
    )
    assert ended == code
    assert "no connection" in out
    assert ("answered none of the requests" in err) == (not options)
    assert {one.error for one in read_records(run)} == {"connect"}
    assert "MISSED" in out


def test_a_generator_that_is_late_makes_the_run_invalid(server: Running, tmp_path: Path) -> None:
    strict = {"max_send_lag_p99_ms": 1e-6, "max_loop_lag_p99_ms": 1e-6}
    path = scenario(server, tmp_path, validity=strict, duration_s=1, warmup_s=0.1)
    code, _, err = load("run", str(path), "--out", str(tmp_path / "run"))
    assert code == 4
    assert "INVALID" in err


@pytest.mark.parametrize(
    ("options", "end", "words"),
    [
        ((), "error_body", "error with status 200"),
        (("--require-slo",), "malformed:empty-object", "not as the API answers"),
        ((), "aborted", "aborted by the server"),
    ],
)
def test_a_run_with_broken_answers_does_not_hold_its_slo(
    tmp_path: Path, options: tuple[str, ...], end: str, words: str
) -> None:
    # One in ten: the class would keep its target without them.
    with running(ttft_ms=5, itl_ms=1, end=end, end_share=0.1) as server:
        path = scenario(server, tmp_path, duration_s=3, warmup_s=0.1)
        document = yaml.safe_load(path.read_text())
        document["classes"] = [{"name": "chat", "model": "reference", "slo": {"target": 0.5}}]
        path.write_text(yaml.safe_dump(document))
        code, out, err = load("run", str(path), "--out", str(tmp_path / "run"), *options)
    assert code == 6, err
    assert "BROKEN" in out
    assert "holds" not in out
    assert words in err
    assert end.partition(":")[0] in {one.error for one in read_records(tmp_path / "run")}
    assert load("report", str(tmp_path / "run"))[0] == 0


def test_a_sweep_does_not_build_on_broken_answers(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    options = ["--class", "whole", "--from", "40", "--to", "40", "--duration", "2"]
    with running(ttft_ms=5, itl_ms=1, end="empty", end_share=0.3) as server:
        path = scenario(server, tmp_path)
        code, out, _ = load("sweep", str(path), *options, "--out", str(folder), "--max-points", "1")
    assert code == 6
    assert "broken answers" in out
    with pytest.raises(ConfigError, match="confirmed no rate"):
        read_sweep(folder)


def test_ctrl_c_keeps_what_was_measured(server: Running, tmp_path: Path) -> None:
    path = scenario(server, tmp_path, duration_s=60)
    run = tmp_path / "run"
    child = command("run", str(path), "--out", str(run), preexec_fn=_default_signals)
    deadline = time.monotonic() + 40
    while not (run / "records.jsonl").exists() or (run / "records.jsonl").stat().st_size < 5000:
        assert time.monotonic() < deadline, "it did not begin"
        time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 4, err
    assert "was stopped after" in err
    assert len(list(read_records(run))) > 10


def test_the_web_ui_shows_our_figures(server: Running, tmp_path: Path) -> None:
    port = free_port()
    path, run = scenario(server, tmp_path, duration_s=3), tmp_path / "run"
    child = command(
        "run", str(path), "--out", str(run), "--web", str(port), preexec_fn=_default_signals
    )
    try:
        rows: set[tuple[str, str]] = set()
        deadline = time.monotonic() + 60
        while not {("talk (reference)", "TTFT"), ("whole (reference)", "chat")} <= rows:
            assert time.monotonic() < deadline, rows
            time.sleep(0.5)
            try:
                found = httpx.get(f"http://127.0.0.1:{port}/stats/requests").json()
            except httpx.TransportError:
                continue
            rows = {(one["name"], one["method"]) for one in found["stats"]}
    finally:
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
    assert (run / "report.html").exists()


def _default_signals() -> None:
    """A test run in the background ignores Ctrl-C, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_slower_server_is_worse_and_the_same_run_is_the_same(
    server: Running, tmp_path: Path
) -> None:
    path = scenario(server, tmp_path, duration_s=3)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert load("run", str(path), "--out", a)[0] == 0
    with running(ttft_ms=300, itl_ms=25) as slower:
        assert load("run", str(path), "--out", b, "--url", slower.url)[0] == 0
    code, out, err = load("compare", a, a, "--json")
    assert code == 0, err
    assert {one["ratio"] for one in json.loads(out)["figures"]} == {1.0}
    code, out, err = load("compare", a, b)
    assert code == 3, err
    assert "worse" in out


def test_a_sweep_leaves_what_a_plan_reads_and_says_how_it_got_there(
    server: Running, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    options = [
        "--class",
        "whole",
        "--from",
        "20",
        "--to",
        "40",
        "--duration",
        "2",
        "--precision",
        "0.5",
    ]
    code, out, err = load("sweep", str(scenario(server, tmp_path)), *options, "--out", str(folder))
    assert code == 0, err
    assert "holds 40 requests/s" in " ".join(out.split())
    assert "20/s: 100.0 % of" in err
    assert "holds, confirmed" in err
    found = read_sweep(folder)
    assert (found.held_per_s, found.failed_per_s) == (40, None)
    assert (folder / "report.html").exists()
    assert all((folder / f"point-0{number}" / "report.html").exists() for number in (1, 2, 3))
