"""`comptoir plan`, as it is called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import typer
import yaml
from typer.testing import CliRunner

from loadtests.plan.cli import plan
from serving.errors import ConfigError
from tests.loadtests.plan.helpers import config, document

app = typer.Typer()
app.command()(plan)
EXAMPLE = Path(__file__).parents[3] / "loadtests/plan/examples/team.yaml"


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """A plan and the sweep that it needs."""
    file, sweep = tmp_path / "plan.yaml", tmp_path / "sweep.json"
    content = config().model_dump(mode="json", exclude_unset=True, exclude_none=True)
    file.write_text(yaml.safe_dump(content))
    sweep.write_bytes(orjson.dumps(document(2)))
    return [str(file), "--sweep", str(sweep)]


def run(*args: str) -> str:
    found = CliRunner().invoke(app, list(args), catch_exceptions=False)
    assert found.exit_code == 0
    return found.output


def test_a_measured_plan_says_what_it_rests_on(files: list[str]) -> None:
    text = run(*files)
    assert "plan: measured" in text
    assert "ESTIMATE" not in text
    assert "The monthly bill depends most on" in text
    assert "Ember, Yearly Electricity Data, 2024, life-cycle" in " ".join(text.split())


def test_runs_that_were_too_short_are_called_so(tmp_path: Path) -> None:
    file, sweep = tmp_path / "plan.yaml", tmp_path / "sweep.json"
    content = config().model_dump(mode="json", exclude_unset=True, exclude_none=True)
    file.write_text(yaml.safe_dump(content))
    # 10 000 requests, 100 in flight: a hundred times over; with 500, twenty times.
    for rate, short in ((20, False), (100, True)):
        sweep.write_bytes(orjson.dumps(document(rate)))
        text = " ".join(run(str(file), "--sweep", str(sweep), "--json").split())
        assert ("its runs were short" in text) == short
        # 30 requests' durations of 5 s, and a quarter more for the warm-up.
        assert ("--duration 188 or more" in text) == short


def test_json_has_figures_with_bounds(files: list[str]) -> None:
    found = orjson.loads(run(*files, "--json"))
    assert (found["comptoir_plan"], found["basis"]) == (1, "measured")
    assert set(found["figures"]["eur_per_month"]) == {"lower", "typical", "upper"}
    assert found["classes"][0]["measured_replicas"] == [1]
    assert found["unsettled"][0]["sweep"].startswith("`comptoir load sweep SCENARIO")


def test_an_estimate_is_called_one_everywhere_and_can_be_refused() -> None:
    text = " ".join(run(str(EXAMPLE)).split())
    assert text.count("ESTIMATE, not measured") == 2
    assert "measure before buying" in text
    found = orjson.loads(run(str(EXAMPLE), "--json"))
    assert found["basis"] == "estimate"
    assert {one["basis"] for one in found["classes"]} == {"estimate"}
    assert "estimate" in run(str(EXAMPLE), "--autoscaling").splitlines()[0]
    with pytest.raises(ConfigError, match=r"--measured-only: no sweep of qwen3-32b .*--input 1200"):
        run(str(EXAMPLE), "--measured-only")


def test_only_the_configuration_is_printed_for_pasting(files: list[str]) -> None:
    found = yaml.safe_load(run(*files, "--autoscaling"))
    assert set(found) == {"id", "device", "gpu", "replicas"}
    with pytest.raises(ConfigError, match="not both"):
        run(*files, "--autoscaling", "--json")


def test_an_unknown_model_without_a_sweep_is_named(files: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"models\.m: nothing was measured: give --sweep, or gpu"):
        run(files[0])


def test_the_module_runs_and_exits_with_2_for_wrong_input(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.plan", str(tmp_path / "none.yaml")],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 2
    assert "none.yaml: cannot be read: No such file" in done.stderr
    assert "Traceback" not in done.stderr
