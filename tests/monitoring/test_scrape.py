"""Every metric that a rule or a dashboard names is exposed by a real gateway, or listed with its exporter."""

from __future__ import annotations

import asyncio
import importlib.util
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serving.commands.monitoring import app
from serving.errors import ComptoirError, ConfigError, StackError
from serving.monitoring.dashboards import dashboards, expressions
from serving.monitoring.external import EXTERNAL, RAY
from serving.monitoring.rules import all_alerts, all_records
from serving.monitoring.scrape import compare, exposed, needed
from serving.monitoring.settings import MonitoringConfig
from serving.settings import KeyConfig, hash_key
from tests.gateway.conftest import SiteFactory
from tests.monitoring.conftest import busy_site
from tests.monitoring.test_alerts import PROMTOOL, promtool

CONFIG = MonitoringConfig()


async def scrape(make_site: SiteFactory) -> str:
    site, traffic = await busy_site(make_site)
    await traffic.everything()
    return (await site.client.get("/metrics")).text


async def test_a_gateway_exposes_everything_that_is_named(make_site: SiteFactory) -> None:
    text = await scrape(make_site)
    found = compare(text, CONFIG)
    assert not found.missing
    assert len(found.present) > 30
    # Each has a value by then, too.
    valued = set(re.findall(r"^([a-zA-Z_:]+)[{ ]", text, re.MULTILINE))
    assert found.present <= valued
    assert "canary" not in text


async def test_a_gateway_that_has_just_started_lacks_nothing(make_site: SiteFactory) -> None:
    site = await make_site()
    assert not compare((await site.client.get("/metrics")).text, CONFIG).missing


async def test_labels_that_are_asked_for_exist(make_site: SiteFactory) -> None:
    text = await scrape(make_site)
    labels = set(re.findall(r"([a-z_]+)=\"", text))
    # Of targets, of alerts, of other exporters.
    labels |= {"job", "instance", "gateway", "alertstate", "service"}
    labels |= {"Hostname", "gpu", "Name", "State", "application"}
    exprs = [expr for board in dashboards(CONFIG) for expr in expressions(board)]
    exprs += [alert.expr for alert in all_alerts(CONFIG)]
    exprs += [record.expr for record in all_records(CONFIG)]
    asked = set()
    for expr in exprs:
        for matchers in re.findall(r"\{([^}]*)\}", expr):
            asked |= set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        for group in re.findall(r"\bby \(([^)]*)\)", expr):
            asked |= {one.strip() for one in group.split(",")}
    assert {"model", "replica", "outcome", "le", "tenant"} <= asked
    assert asked - labels == set()


def test_what_a_gateway_lacks_is_missing_with_those_who_need_it() -> None:
    found = compare("# TYPE comptoir_outcomes counter\n", CONFIG)
    assert "comptoir_outcomes_total" in found.present
    assert "comptoir_ttft_seconds_bucket" in found.missing
    assert "comptoir-fleet" in found.missing["comptoir_ttft_seconds_bucket"]
    assert "ComptoirBreakerOpen" in found.missing["comptoir_breaker_state"]
    assert "up" not in found.missing


def test_only_prometheus_text_is_read() -> None:
    with pytest.raises(ComptoirError, match="text format"):
        exposed("{not metrics}\n{")


def test_every_external_metric_is_used() -> None:
    assert set(EXTERNAL) <= set(needed(CONFIG))


def test_rays_metrics_are_in_the_installed_ray() -> None:
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    root = Path(spec.submodule_search_locations[0])
    places = ("serve/_private/replica.py", "dashboard/modules/reporter/reporter_agent.py")
    panels = "dashboard/modules/metrics/dashboards/default_dashboard_panels.py"
    text = "".join((root / place).read_text(encoding="utf-8") for place in (*places, panels))
    ours = {"ray_comptoir_autoscaling_changes_total"}
    for name in set(RAY) - ours:
        bare = name.removeprefix("ray_")
        quoted = f'"{bare}"' in text or f'"{bare.removesuffix("_total")}"' in text
        assert quoted or f"{name}{{" in text, name


@pytest.mark.services
@pytest.mark.skipif(PROMTOOL is None, reason="promtool is missing: apt-get install prometheus")
async def test_promtool_has_nothing_against_the_exposition(make_site: SiteFactory) -> None:
    text = await scrape(make_site)
    result = await asyncio.to_thread(promtool, "check", "metrics", text=text)
    assert result.returncode == 0, result.stdout + result.stderr


# ---- the command ---------------------------------------------------------------------------------------


async def run(*arguments: str) -> tuple[int, str, BaseException | None]:
    result = await asyncio.to_thread(CliRunner().invoke, app, list(arguments))
    return result.exit_code, result.output, result.exception


async def test_check_says_that_all_is_there(make_site: SiteFactory) -> None:
    site = await make_site()
    code, output, _ = await run("check", site.url)
    assert code == 0
    assert "metrics are there" in output
    assert "DCGM_FI_DEV_POWER_USAGE" in output


async def test_check_fails_where_something_is_missing(
    make_site: SiteFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await make_site()
    monkeypatch.setattr("serving.telemetry.metrics.MOMENT", {"build_info": "", "in_flight": ""})
    monkeypatch.setattr("serving.gateway.report.gauges", lambda services: [])
    code, output, _ = await run("check", site.url)
    assert code == 1
    assert "comptoir_breaker_state: ComptoirBreakerOpen" in output


async def test_check_needs_a_key_where_the_endpoint_does(make_site: SiteFactory) -> None:
    keys = (
        KeyConfig(name="a", hash=hash_key("sk-a"), scopes=("metrics", "inference")),
        KeyConfig(name="tenant", hash=hash_key("sk-tenant")),
    )
    site, _ = await busy_site(make_site, keys=keys)
    _, _, error = await run("check", site.url)
    assert isinstance(error, StackError)
    assert "COMPTOIR_API_KEY" in str(error)
    assert (await run("check", site.url, "--key", "sk-a"))[0] == 0
    _, _, error = await run("check", site.url, "--key", "sk-tenant")
    assert isinstance(error, StackError)
    assert "--scope metrics" in str(error)


async def test_check_names_what_is_wrong_with_the_url() -> None:
    assert isinstance((await run("check", "localhost:8000"))[2], ConfigError)
    error = (await run("check", "http://127.0.0.1:9"))[2]
    assert isinstance(error, StackError)
    assert "does not answer" in str(error)
