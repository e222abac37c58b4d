"""Prometheus itself evaluates every alert: it fires with its fault, and is silent beside it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from serving.monitoring.files import rule_files
from serving.monitoring.manifests import RULES_FILE
from serving.monitoring.rules import all_alerts
from serving.monitoring.settings import MonitoringConfig
from tests.monitoring.cases import CASES, Case

PROMTOOL = shutil.which("promtool")
pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(PROMTOOL is None, reason="promtool is missing: apt-get install prometheus"),
]


def promtool(*arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROMTOOL), *map(str, arguments)],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rules")
    for name, text in rule_files(MonitoringConfig()).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / RULES_FILE


def test_every_alert_has_a_case() -> None:
    assert {case.alert for case in CASES} == {
        alert.name for alert in all_alerts(MonitoringConfig())
    }


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_alert_fires_with_its_fault_and_not_without(
    case: Case, rules: Path, tmp_path: Path
) -> None:
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(case.document(str(rules))), encoding="utf-8")
    result = promtool("test", "rules", path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_promtool_notices_an_alert_that_does_not_fire(rules: Path, tmp_path: Path) -> None:
    document = CASES[0].document(str(rules))
    document["tests"][0]["input_series"] = []
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert promtool("test", "rules", path).returncode == 1


def test_rules_and_configuration_are_right(rules: Path) -> None:
    for command in ("rules", "config"):
        path = rules if command == "rules" else rules.parent / "prometheus.yml"
        result = promtool("check", command, path)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("pace", [0.001, 1 / 60, 3.0])
def test_rules_are_right_at_any_pace(pace: float, tmp_path: Path) -> None:
    path = tmp_path / RULES_FILE
    path.write_text(rule_files(MonitoringConfig(pace=pace))[RULES_FILE], encoding="utf-8")
    result = promtool("check", "rules", path)
    assert result.returncode == 0, result.stdout + result.stderr
