"""The generated files are those in the repository, and say what the settings say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from serving.commands.monitoring import app
from serving.errors import ConfigError
from serving.kubernetes import names
from serving.monitoring import manifests
from serving.monitoring.dashboards import dashboards
from serving.monitoring.files import dashboard_files, kubernetes_files, rule_files
from serving.monitoring.grafana import COLUMNS, document
from serving.monitoring.rules import all_alerts, groups
from serving.monitoring.settings import MonitoringConfig, duration
from serving.telemetry.metrics import GatewayMetrics
from serving.telemetry.moment import MOMENT
from tests.k8s.checking import schema_problems

ROOT = Path(__file__).parents[2]
CONFIG = MonitoringConfig()
# Grafana's ids of units (packages/grafana-data, valueFormats/categories.ts), as far as they are used.
UNITS = {"none", "short", "percent", "percentunit", "s", "bytes", "ops", "reqps", "watt", "kwatth"}
UNITS |= {"celsius", "massg", "currencyEUR", "suffix: tok/s"}


@pytest.mark.parametrize(
    ("folder", "files"),
    [
        ("deployments/monitoring", rule_files(CONFIG)),
        ("deployments/monitoring/dashboards", dashboard_files(CONFIG)),
        ("k8s/monitoring", kubernetes_files(CONFIG)),
    ],
    ids=["rules", "dashboards", "kubernetes"],
)
def test_the_files_in_the_repository_are_up_to_date(folder: str, files: dict[str, str]) -> None:
    there = {
        path.name: path.read_text(encoding="utf-8")
        for path in (ROOT / folder).iterdir()
        if path.is_file()
    }
    assert there == files


def test_commands_write_these_files(tmp_path: Path) -> None:
    for arguments, files in (
        (["rules"], rule_files(CONFIG)),
        (["dashboards"], dashboard_files(CONFIG)),
        (["rules", "--kubernetes"], kubernetes_files(CONFIG)),
    ):
        folder = tmp_path / "-".join(arguments)
        result = CliRunner().invoke(app, [*arguments, "--out", str(folder)])
        assert result.exit_code == 0, result.output
        assert {one.name: one.read_text(encoding="utf-8") for one in folder.iterdir()} == files


def test_settings_move_objectives_and_thresholds(tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("availability: 0.99\nttft_s: 1\nrunbooks: https://wiki.example/runbooks\n")
    result = CliRunner().invoke(
        app, ["rules", "--out", str(tmp_path / "out"), "--settings", str(settings)]
    )
    assert result.exit_code == 0, result.output
    text = (tmp_path / "out" / manifests.RULES_FILE).read_text(encoding="utf-8")
    assert "> 0.144" in text
    assert 'le="1.0"' in text
    assert "https://wiki.example/runbooks#comptoirbreakeropen" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ttft_s: 2", "ttft_s .2. must be one of 0.005"),
        ("availabilty: 0.9", "availabilty: unknown key; known: availability"),
        ("availability: 1", "availability: "),
        ("[]", "must be a mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_wrong_settings_are_named(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    result = CliRunner().invoke(
        app, ["rules", "--out", str(tmp_path / "out"), "--settings", str(path)]
    )
    assert isinstance(result.exception, ConfigError)
    assert re.search(words, result.exception.message)
    assert not (tmp_path / "out").exists()


# ---- rules ---------------------------------------------------------------------------------------------


def test_every_alert_says_what_is_wrong_and_where_to_read_on() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))
    alerts = all_alerts(CONFIG)
    assert headings == {alert.name for alert in alerts}
    for alert in alerts:
        rule = alert.as_rule(CONFIG)
        assert rule["annotations"]["runbook_url"] == f"docs/monitoring.md#{alert.name.lower()}"
        assert len(rule["annotations"]["summary"]) < 100
        assert rule["annotations"]["description"].endswith(".")
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_names_of_rules_are_unique() -> None:
    found = [rule.name + type(rule).__name__ for group in groups(CONFIG) for rule in group.rules]
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("seconds", "text"), [(300, "5m"), (86400, "1d"), (90, "90s"), (7200, "2h"), (0.5, "500ms")]
)
def test_durations_are_prometheus_own(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# ---- dashboards ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("board", dashboards(CONFIG), ids=lambda board: board.name)
def test_a_dashboard_can_be_read(board: Any) -> None:
    found = document(board)
    assert found == json.loads(dashboard_files(CONFIG)[f"{board.uid}.json"])
    assert found["uid"] == f"comptoir-{board.name}"
    panels = found["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels if panel["type"] != "row"}) == len(board.panels)
    known = {variable["name"] for variable in found["templating"]["list"]}
    for panel in panels:
        if panel["type"] == "row":
            continue
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            assert target["legendFormat"]
            used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval", "__range"}
            assert used <= known
    assert known <= set(re.findall(r"\$\{?(\w+)", json.dumps(panels)))


@pytest.mark.parametrize("board", dashboards(CONFIG), ids=lambda board: board.name)
def test_panels_do_not_lie_on_each_other(board: Any) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in document(board)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= COLUMNS
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells


# ---- Kubernetes ----------------------------------------------------------------------------------------


def test_the_pod_monitor_finds_the_gateways_that_k8s_render_makes() -> None:
    overlay = ROOT / "k8s" / "overlays" / "eu-multi-node"
    (service,) = yaml.safe_load_all((overlay / "rayservice.yaml").read_text(encoding="utf-8"))
    workers = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    pods = [group["template"] for group in workers]
    gateways = [
        pod for pod in pods if pod["metadata"]["labels"].get(names.COMPONENT) == names.GATEWAY
    ]
    (gateway,) = gateways
    (monitor,) = yaml.safe_load_all(kubernetes_files(CONFIG)["pod-monitor.yaml"])
    assert (
        monitor["spec"]["selector"]["matchLabels"].items() <= gateway["metadata"]["labels"].items()
    )
    ports = {
        port["name"]: port["containerPort"]
        for container in gateway["spec"]["containers"]
        for port in container["ports"]
    }
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert ports[endpoint["port"]] == manifests.PORT
    (policy,) = yaml.safe_load_all(kubernetes_files(CONFIG)["network-policy.yaml"])
    assert policy["spec"]["ingress"][0]["ports"][0]["port"] == manifests.PORT
    assert policy["spec"]["podSelector"] == monitor["spec"]["selector"]


def test_the_kustomization_lists_what_is_there() -> None:
    files = kubernetes_files(CONFIG)
    listed = yaml.safe_load(files["kustomization.yaml"])["resources"]
    assert {*listed, "kustomization.yaml"} == set(files)


@pytest.mark.parametrize("file", ["network-policy.yaml", "dashboards.yaml"])
def test_manifests_fit_kubernetes_schemas(file: str) -> None:
    found = list(yaml.safe_load_all(kubernetes_files(CONFIG)[file]))
    assert found
    for manifest in found:
        assert schema_problems(manifest) == []
        broken = manifest | {"metadata": {**manifest["metadata"], "nmae": "x"}}
        assert schema_problems(broken)


# ---- docs ----------------------------------------------------------------------------------------------


def test_every_metric_of_the_gateway_is_documented_and_no_other() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    table = text.partition("| `comptoir_…` |")[2].partition("\n\n")[0]
    said = {
        name
        for row in table.splitlines()
        for name in re.findall(r"`([a-z_…]+)`", row.split("|")[1])
    }
    whole = {name for name in said if not name.endswith("…")}
    families = tuple(name.removesuffix("…") for name in said - whole)
    counted = GatewayMetrics()._counted
    made = {
        family.name + ("_total" if family.type == "counter" else "")
        for metric in counted
        for family in metric.describe()
    }
    made = {name.removeprefix("comptoir_") for name in made} | MOMENT.keys()
    undocumented = {name for name in made - whole if not name.startswith(families)}
    assert not undocumented, f"write a row in docs/monitoring.md for {sorted(undocumented)}"
    assert not whole - made, f"there is no metric {sorted(whole - made)}"
