"""A real Prometheus scrapes a real gateway: dashboards have values, and alerts fire when engines break."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from loadtests.processes.free_ports import free_port
from serving.gateway.engine_errors import ENGINE_DEAD
from serving.monitoring import manifests
from serving.monitoring.dashboards import dashboards, expressions
from serving.monitoring.external import DCGM, RAY
from serving.monitoring.files import rule_files
from serving.monitoring.promql import metrics_in
from serving.monitoring.settings import MonitoringConfig
from tests.gateway.conftest import SiteFactory
from tests.monitoring.conftest import Traffic, busy_site

PROMETHEUS = shutil.which("prometheus")
pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(
        PROMETHEUS is None, reason="prometheus is missing: apt-get install prometheus"
    ),
]

# A minute passes in a second.
CONFIG = MonitoringConfig(pace=1 / 60, min_requests=20)
SCRAPE_S = 0.5
# On a busy machine, too.
LIMIT_S = 200
VARIABLES = {
    "$__rate_interval": "5s",
    "$__range": "60s",
    "$model": ".*",
    "$tenant": ".*",
    "$pue": "1.3",
    "$price": "0.2",
    "$carbon": "300",
}


class Prometheus:
    """A server of its own, in a folder of its own."""

    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=10)

    async def get(self, path: str, **params: str) -> Any:
        answer = (await self._client.get(f"/api/v1/{path}", params=params)).json()
        assert answer["status"] == "success", (params, answer)
        return answer["data"]

    async def query(self, expr: str) -> list[dict[str, Any]]:
        return list((await self.get("query", query=expr))["result"])

    async def firing(self) -> dict[str, dict[str, Any]]:
        found = (await self.get("alerts"))["alerts"]
        return {one["labels"]["alertname"]: one for one in found if one["state"] == "firing"}

    async def close(self) -> None:
        await self._client.aclose()


@contextlib.asynccontextmanager
async def running(folder: Path, target: str) -> AsyncIterator[Prometheus]:
    configuration = manifests.prometheus(CONFIG)
    configuration["global"] = {
        "scrape_interval": f"{int(SCRAPE_S * 1000)}ms",
        "scrape_timeout": f"{int(SCRAPE_S * 1000)}ms",
        "evaluation_interval": "500ms",
    }
    # Ray and DCGM are not here.
    configuration["scrape_configs"] = configuration["scrape_configs"][:1]
    configuration["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    rules = rule_files(CONFIG)[manifests.RULES_FILE]
    (folder / manifests.RULES_FILE).write_text(rules, encoding="utf-8")
    port = free_port()
    log = (folder / "log").open("wb")
    process = await asyncio.create_subprocess_exec(
        str(PROMETHEUS),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
        stdout=log,
        stderr=log,
    )
    server = Prometheus(f"http://127.0.0.1:{port}")
    try:
        await until(lambda: ready(port), "Prometheus answers")
        yield server
    finally:
        await server.close()
        process.terminate()
        await process.wait()
        log.close()


async def ready(port: int) -> bool:
    try:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"http://127.0.0.1:{port}/-/ready")).status_code == 200
    except httpx.TransportError:
        return False


async def until(condition: Callable[[], Awaitable[Any]], what: str) -> None:
    ends = time.monotonic() + LIMIT_S
    while not await condition():
        assert time.monotonic() < ends, f"{what}: not in {LIMIT_S} s"
        await asyncio.sleep(0.2)


async def keep_going(traffic: Traffic) -> None:
    while True:
        await traffic.once(2, max_tokens=2)
        await asyncio.sleep(0.05)


def filled_in(expr: str) -> str:
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    # Nothing was scraped an hour or a day ago.
    return re.sub(r"\[(1h|1d|30d)\]", "[60s]", expr)


async def test_dashboards_have_values_and_alerts_fire_when_engines_break(
    make_site: SiteFactory, tmp_path: Path
) -> None:
    breaker = {"breaker": {"max_open_s": 1.0}}
    site, traffic = await busy_site(make_site, **breaker)
    async with running(tmp_path, site.url.removeprefix("http://")) as prometheus:
        await until(lambda: prometheus.query("comptoir_build_info"), "the gateway is scraped")
        # Everything before a rate's window and in it.
        for _ in range(3):
            await traffic.everything()
            await asyncio.sleep(SCRAPE_S)
        ends = time.monotonic() + LIMIT_S
        while empty := await without_values(prometheus):
            # On a busy machine scrapes are missed, and what happened falls out of a rate's window.
            assert time.monotonic() < ends, empty
            await traffic.everything()

        going = asyncio.create_task(keep_going(traffic))
        try:
            await until(lambda: quiet(prometheus), "nothing fires while all is well")
            for engine in site.engines:
                # Nothing in a request brings that about: a failure that may be its doing opens no breaker.
                engine.status, engine.error_message = 500, ENGINE_DEAD.decode()
            await until(lambda: fire(prometheus), "alerts fire when engines break")
            await annotations_are_whole(prometheus)
            for engine in site.engines:
                engine.status = 200
            await until(lambda: breakers_closed(prometheus), "the alert ends with the fault")
        finally:
            going.cancel()


async def without_values(prometheus: Prometheus) -> list[tuple[str, str]]:
    empty = []
    for board in dashboards(CONFIG):
        for expr in expressions(board):
            found = await prometheus.query(filled_in(expr))
            if not found and not metrics_in(expr) & (set(DCGM) | set(RAY)):
                empty.append((board.name, expr))
    return empty


async def quiet(prometheus: Prometheus) -> bool:
    return not {"ComptoirBreakerOpen", "ComptoirEndpointDown"} & set(await prometheus.firing())


async def fire(prometheus: Prometheus) -> bool:
    return {"ComptoirBreakerOpen", "ComptoirAvailabilityBurnFast"} <= set(await prometheus.firing())


async def breakers_closed(prometheus: Prometheus) -> bool:
    return "ComptoirBreakerOpen" not in await prometheus.firing()


async def annotations_are_whole(prometheus: Prometheus) -> None:
    for alert in (await prometheus.firing()).values():
        for text in alert["annotations"].values():
            assert "<" not in text, text
            assert "{{" not in text, text
    summary = (await prometheus.firing())["ComptoirBreakerOpen"]["annotations"]["summary"]
    assert re.fullmatch(r"The replica replica-\d of fake keeps failing", summary)
