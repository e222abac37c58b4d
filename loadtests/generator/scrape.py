"""Scrapes metrics while a run goes on and writes them beside its records. A process of its own.

    python -m loadtests.generator.scrape FOLDER

A process of its own, so that parsing does not delay the generator. Sources that do not answer are left out.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import orjson
from prometheus_client.parser import text_string_to_metric_families

from loadtests.run.folder import BEGUN, read_note
from loadtests.run.record import METRICS, SCENARIO
from loadtests.workload.scenario import Scenario
from serving import api, http_client

# Of everything that is exposed: what says something about load, and no histogram buckets.
PREFIXES = ("vllm:", "comptoir_", "ray_serve_", "DCGM_FI_DEV_", "process_cpu_seconds")
UNWANTED_ENDINGS = ("_bucket", "_created")
# How the gateway says whose rows these are, and what to do when they are not all.
VIEW_HEADER = "x-comptoir-view"
HINT = "name the variable of a key with the scope metrics in target.metrics_key"
# NVIDIA's exporter and Linux' energy counters, joined to a run where they can be read.
RAPL = Path("/sys/class/powercap")


def wanted(text: str) -> dict[str, float]:
    """Samples worth keeping of one exposition, by `name{label="value"}`.

    Raises:
        ValueError: it is not in the Prometheus text format.
    """
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith(PREFIXES) and not sample.name.endswith(UNWANTED_ENDINGS):
                found[_series(sample.name, sample.labels)] = float(sample.value)
    return found


def _series(name: str, labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return f"{name}{{{inside}}}" if inside else name


def energy_joules(root: Path = RAPL) -> dict[str, float]:
    """The energy that the processor's packages have used, where the kernel shows it."""
    found = {}
    for path in sorted(root.glob("intel-rapl:?/energy_uj")):
        try:
            found[f'host_energy_joules_total{{package="{path.parent.name}"}}'] = (
                int(path.read_text()) / 1e6
            )
        except (OSError, ValueError):
            continue
    return found


def scrape(
    clients: Mapping[str, httpx.Client], headers: Mapping[str, str], told: dict[str, str]
) -> Iterator[tuple[str, dict[str, float]]]:
    """One look at every source; `told` is what has been complained of, once for each.

    Args:
        clients: by source: a proxy may be for some and not for others.
    """
    for source, client in clients.items():
        try:
            response = client.get(source, headers=headers)
            lack = lacking(response.status_code, response.headers.get(VIEW_HEADER))
            if lack and not told.get(source):
                told[source] = lack
                print(f"{source}: {lack}", file=sys.stderr, flush=True)
            if response.status_code == 200:
                yield source, wanted(response.text)
        except (httpx.HTTPError, ValueError):
            continue
    energy = energy_joules()
    if energy:
        yield "host", energy


def lacking(status: int, view: str | None) -> str | None:
    """The scope that the scraping key lacks; None when it sees everything."""
    if status in (401, 403):
        return f"metrics are refused with status {status}: {HINT}"
    if view == "tenant":
        return f"the key sees its own rows of the metrics only: {HINT}"
    return None


def sources_of(scenario: Scenario) -> tuple[str, ...]:
    """What the scenario names; without that, the endpoint's own /metrics."""
    target = scenario.target
    return target.metrics or (target.url.rstrip("/").removesuffix("/v1") + api.METRICS,)


def watch(folder: Path) -> None:
    """Until this process is ended, or its parent is gone."""
    scenario = Scenario.load(folder / SCENARIO)
    target, parent = scenario.target, os.getppid()
    variable = target.metrics_key or next(iter(target.keys.values()), None)
    key = os.environ.get(variable) if variable else None
    headers = {"authorization": f"Bearer {key}"} if key else {}
    while (begun := read_note(folder, BEGUN)) is None and os.getppid() == parent:
        time.sleep(0.05)
    told: dict[str, str] = {}
    zero_s = begun["perf_counter_s"] if begun else 0.0
    with contextlib.ExitStack() as stack:
        file = stack.enter_context((folder / METRICS).open("ab"))
        clients = {
            source: stack.enter_context(
                http_client.client(source, timeout_s=5, verify_tls=target.verify_tls)
            )
            for source in sources_of(scenario)
        }
        while os.getppid() == parent:
            at_s = time.perf_counter()
            for source, values in scrape(clients, headers, told):
                row: dict[str, Any] = {"t_s": round(at_s - zero_s, 3), "source": source}
                file.write(orjson.dumps(row | {"values": values}, option=orjson.OPT_APPEND_NEWLINE))
            file.flush()
            time.sleep(max(0.0, target.scrape_s - (time.perf_counter() - at_s)))


if __name__ == "__main__":
    # No command for people: the coordinator starts it, and a library of options would delay the first look.
    watch(Path(sys.argv[1]))
