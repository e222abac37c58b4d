from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from loadtests.bench.compare.contenders import (
    CONTENDERS,
    ENGINE_ARGS,
    ENV,
    RAY_PATHS,
    Launch,
    Place,
)
from serving.catalogue.catalogue import load_catalogue
from serving.engine_plan.planner import make_plan
from serving.settings import GatewayConfig, ModelConfig, hash_key


def launch(name: str, folder: Path) -> Launch:
    return CONTENDERS[name].launch(Place(Path("model"), folder, 8123, "secret"))


@pytest.mark.parametrize("name", ["vllm", "vllm-default"])
def test_vllms_server_gets_every_engine_argument(name: str, tmp_path: Path) -> None:
    command = launch(name, tmp_path).command
    for argument, value in ENGINE_ARGS.items():
        flag = "--" + argument.replace("_", "-")
        if value is False:
            assert flag not in command
            continue
        following = [*command, "--"][command.index(flag) + 1]
        assert following.startswith("--") if value is True else following == str(value)


@pytest.mark.parametrize("name", RAY_PATHS)
def test_ray_gets_every_engine_argument(name: str, tmp_path: Path) -> None:
    started = launch(name, tmp_path)
    assert json.loads(started.command[-1]) == dict(ENGINE_ARGS)
    assert ENV.items() <= started.env.items()


def test_comptoirs_replica_gets_every_engine_argument(tmp_path: Path) -> None:
    launch("comptoir", tmp_path)
    document = yaml.safe_load((tmp_path / "bench.yaml").read_text(encoding="utf-8"))
    (model,) = [app["args"] for app in document["applications"] if app["name"] != "gateway"]
    plan = make_plan(
        ModelConfig.from_args(model), load_catalogue(), device="cpu", gpu=None, cache_dir=tmp_path
    )
    # Its weights say bfloat16 themselves.
    expected = {name: value for name, value in ENGINE_ARGS.items() if name != "dtype"}
    assert {name: plan.engine_args.get(name) for name in expected} == expected
    environment = {name: plan.env.get(name) for name in ENV if name.startswith(("VLLM", "OMP"))}
    assert environment == {name: ENV[name] for name in environment}


def test_comptoir_wants_the_key_and_stores_its_hash_only(tmp_path: Path) -> None:
    launch("comptoir", tmp_path)
    text = (tmp_path / "bench.yaml").read_text(encoding="utf-8")
    (gateway,) = [
        app["args"] for app in yaml.safe_load(text)["applications"] if app["name"] == "gateway"
    ]
    assert [key.hash for key in GatewayConfig(**gateway).keys] == [hash_key("secret")]
    assert "secret" not in text


def test_only_what_tunes_it_differs_between_rays_paths(tmp_path: Path) -> None:
    tuned = {"RAY_SERVE_THROUGHPUT_OPTIMIZED", "RAY_SERVE_ENABLE_HA_PROXY"}
    direct = tuned | {"RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING"}
    for name, switches in (("ray", set()), ("ray-tuned", tuned), ("ray-direct", direct)):
        env = launch(name, tmp_path).env
        assert {switch for switch in direct if env.get(switch) == "1"} == switches


def test_haproxy_keeps_its_files_to_the_run(tmp_path: Path) -> None:
    env = launch("ray-tuned", tmp_path).env
    paths = [value for name, value in env.items() if name.endswith(("_LOC", "_PATH", "_FILE"))]
    assert len(paths) == 3
    assert all(path.startswith(str(tmp_path)) for path in paths)


@pytest.mark.parametrize("name", [name for name in CONTENDERS if name != "comptoir"])
def test_nobody_else_runs_with_comptoirs_plugins_or_files(name: str, tmp_path: Path) -> None:
    env = launch(name, tmp_path).env
    assert env["VLLM_PLUGINS"] == ""
    assert not [value for value in env.values() if "/serving/" in value]
