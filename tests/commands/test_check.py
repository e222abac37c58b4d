"""`comptoir check`: what is right, what is wrong, and what it warns of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from serving.cli import app
from serving.settings import hash_key

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def check(*words: str | Path, **environment: str) -> Result:
    return CliRunner().invoke(
        app, ["check", *map(str, words)], env={"COLUMNS": "200"} | environment
    )


def write(path: Path, *models: dict[str, Any], top: Any = None, **gateway: Any) -> Path:
    applications = [
        {
            "name": "gateway",
            "route_prefix": None,
            "import_path": "serving.app:build_gateway",
            "args": gateway,
        }
    ]
    for args in models:
        applications.append(
            {
                "name": args["id"],
                "route_prefix": None,
                "import_path": "serving.app:build_model",
                "args": args,
            }
        )
    path.write_text(yaml.safe_dump({"applications": applications} | (top or {})))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "site.yaml"


TINY = {"id": "tiny", "catalogue": "tiny-qwen3"}
BIG = {"id": "big", "catalogue": "qwen3-235b-a22b-instruct-2507", "device": "gpu", "gpu": "h200"}


def test_a_right_file_lists_what_runs_where(path: Path) -> None:
    result = check(write(path, TINY, BIG))
    assert result.exit_code == 0, result.output
    assert f"ok {path}" in result.stdout
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert "CPU" in rows["tiny"]
    assert "2 x H200" in rows["big"]
    assert "Apache License 2.0" in rows["big"]


def test_warnings_go_to_stderr_and_fail_only_when_strict(path: Path) -> None:
    write(path, BIG)
    result = check(path)
    assert result.exit_code == 0
    assert "big: no revision" in result.stderr
    assert "no API keys" in result.stderr
    assert check(path, "--strict").exit_code == 2


@pytest.mark.parametrize(("surge", "warns"), [(100, True), (0, False)])
def test_a_changed_gateway_must_find_a_place(path: Path, surge: int, warns: bool) -> None:
    document = yaml.safe_load(write(path, TINY).read_text())
    gateway = document["applications"][0]
    gateway["args"] = (gateway.get("args") or {}) | {"surge_percent": surge}
    options = {"num_cpus": 0, "resources": {"comptoir_gateway": 1}}
    gateway["deployments"] = [{"name": "GatewayReplica", "ray_actor_options": options}]
    path.write_text(yaml.safe_dump(document))
    assert ("surge_percent to 0" in check(path).stderr.replace("\n", " ")) == warns


def test_a_pinned_file_with_keys_is_right_even_when_strict(path: Path) -> None:
    key = {"name": "acme", "hash": hash_key("k")}
    result = check(write(path, BIG | {"revision": COMMIT}, keys=[key], host="0.0.0.0"), "--strict")
    assert result.exit_code == 0, result.output
    assert "warning" not in result.output


@pytest.mark.parametrize(
    ("model", "telling"),
    [
        ({"id": "hunyuan-7b-instruct"}, "DOES NOT APPLY IN THE EUROPEAN UNION"),
        ({"id": "m", "catalogue": "qwen3-9999b"}, "nearest: "),
        (BIG | {"gpu": "l40s"}, "h100, h200"),
        (BIG | {"layout": 17}, "counted from 0"),
        ({"id": "ling-mini-2.0"}, "never sets trust_remote_code"),
        (TINY | {"catalogue": "tiny-gpt"}, "gpt"),
        (TINY | {"catalogue_files": ["/none.yaml"]}, "cannot be read"),
        (TINY | {"engine_args": {"trust_remote_code": True}}, "never run"),
    ],
)
def test_a_wrong_model_is_refused_with_the_reason_and_its_application(
    path: Path, model: dict[str, Any], telling: str
) -> None:
    result = check(write(path, TINY | {"id": "other"}, model))
    assert result.exit_code == 2
    assert f"invalid {path}" in result.stderr
    assert telling in result.stderr
    assert f"application '{model['id']}'" in result.stderr


def test_what_ray_serve_refuses_is_refused(path: Path) -> None:
    result = check(write(path, TINY, top={"proxy_location": "Everywhere"}))
    assert result.exit_code == 2
    assert "proxy_location" in result.stderr


def test_an_unknown_key_is_named_with_those_that_exist(path: Path) -> None:
    result = check(write(path, TINY | {"replica": 2}))
    assert result.exit_code == 2
    assert "replica: unknown key" in result.stderr
    assert "replicas" in result.stderr


def test_every_file_is_checked_and_one_wrong_one_fails_all(path: Path, tmp_path: Path) -> None:
    wrong = write(tmp_path / "wrong.yaml", TINY, port=0)
    result = check(wrong, write(path, TINY), tmp_path / "none.yaml")
    assert result.exit_code == 2
    assert f"ok {path}" in result.stdout
    assert f"invalid {wrong}" in result.stderr
    assert "none.yaml: cannot be read" in result.stderr


def test_a_site_that_nobody_can_ask_is_warned_of(path: Path) -> None:
    keys = [{"name": "prometheus", "hash": hash_key("a"), "scopes": ["metrics"]}]
    assert "none has the scope inference" in check(write(path, TINY, keys=keys)).stderr
    keys.append({"name": "acme", "hash": hash_key("b")})
    assert "none has the scope" not in check(write(path, TINY, keys=keys)).stderr


def test_a_key_for_a_model_that_the_file_has_not_is_warned_of(path: Path) -> None:
    adapters = {"adapters": {"tuned": "/none"}}
    keys = [
        {"name": "acme", "hash": hash_key("a"), "models": ["tini", "*"]},
        {"name": "shop", "hash": hash_key("b"), "models": ["tiny", "tuned"]},
    ]
    result = check(write(path, TINY | adapters, keys=keys))
    assert result.exit_code == 0
    assert result.stderr.count("warning:") == 1
    assert "keys.acme.models: there is no model 'tini' in this file; available: tiny, tuned" in (
        result.stderr
    )


def test_strict_says_why_a_right_file_fails(path: Path) -> None:
    assert "--strict: warnings fail" in check(write(path, TINY), "--strict").stderr
    assert "--strict" not in check(path).stderr


def test_the_environment_counts(path: Path) -> None:
    write(path, TINY)
    assert check(path).exit_code == 0
    exposed = check(path, COMPTOIR_HOST="0.0.0.0")
    assert exposed.exit_code == 2
    assert "no API key is configured" in exposed.stderr
    assert "CPU" in check(write(path, BIG), COMPTOIR_DEVICE="cpu").stdout


def test_a_path_with_brackets_is_shown_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "site[bold].yaml", TINY)
    assert str(path) in check(path).stdout
    path.write_text("[")
    assert f"invalid {path}" in check(path).stderr


def test_routing_names_models_that_the_file_has(path: Path) -> None:
    result = check(write(path, TINY, routing={"aliases": {"chat": "nothing"}}))
    assert result.exit_code == 2
    assert "aliases.chat: there is no model 'nothing'" in result.stderr


def test_prefill_replicas_are_shown_and_counted_beside_the_models_own(path: Path) -> None:
    result = check(write(path, BIG | {"prefill": {"engine_args": {"tensor_parallel_size": 4}}}))
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines() if "x H200" in line]
    assert [row[0] for row in rows] == ["big", "big"]
    assert rows[1][1] == "(prefill)"
    assert rows[0][2:4] == ["2", "x"]
    assert rows[1][3:5] == ["4", "x"]
    # What is wrong in both is said once.
    assert (result.stdout + result.stderr).count("no revision") == 1


def test_what_is_wrong_with_prefill_replicas_only_says_so(path: Path) -> None:
    result = check(write(path, BIG | {"prefill": {"engine_args": {"tensor_parallel_size": 7}}}))
    assert result.exit_code == 2
    assert "prefill replicas: engine_args.tensor_parallel_size" in result.output
