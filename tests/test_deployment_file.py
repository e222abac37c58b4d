"""Reading a Serve config file: Comptoir's part is checked, the rest is left to Serve."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.deployment_file import (
    GATEWAY_BUILDER,
    MODEL_BUILDER,
    DeploymentFile,
    load_deployment_file,
)
from serving.errors import ConfigError
from serving.settings import ProcessSettings


def application(name: str, builder: str, **args: Any) -> dict[str, Any]:
    return {"name": name, "route_prefix": None, "import_path": builder, "args": args}


def gateway(**args: Any) -> dict[str, Any]:
    return application("gateway", GATEWAY_BUILDER, **args)


def model(name: str, **args: Any) -> dict[str, Any]:
    return application(name, MODEL_BUILDER, **({"id": name} | args))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "site.yaml"


def load(path: Path, *applications: Any, process: ProcessSettings | None = None) -> DeploymentFile:
    path.write_text(yaml.safe_dump({"applications": list(applications)}))
    return load_deployment_file(path, process or ProcessSettings())


def refusal(path: Path, *applications: Any) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        load(path, *applications)
    assert str(path) in raised.value.message
    return raised.value


def test_a_file_gives_its_gateway_and_its_models_in_order(path: Path) -> None:
    file = load(path, model("b"), gateway(port=9000), model("a", catalogue="qwen3-32b"))
    assert file.gateway.port == 9000
    assert [one.id for one in file.models] == ["b", "a"]
    assert file.path == path
    assert file.document["applications"][0]["name"] == "b"


def test_anchors_share_a_site(path: Path) -> None:
    path.write_text(
        textwrap.dedent(f"""
        applications:
          - {{name: g, route_prefix: null, import_path: "{GATEWAY_BUILDER}",
              args: {{site: &site {{jurisdiction: DE}}}}}}
          - {{name: m, route_prefix: null, import_path: "{MODEL_BUILDER}",
              args: {{id: m, site: *site}}}}
        """)
    )
    file = load_deployment_file(path, ProcessSettings())
    assert file.gateway.site == file.models[0].site
    assert file.models[0].site.jurisdiction == "DE"


def test_command_line_and_environment_win_over_the_file(path: Path) -> None:
    process = ProcessSettings(host="::1", port=9999)
    file = load(path, gateway(host="127.0.0.1", port=8000), process=process)
    assert (file.gateway.host, file.gateway.port) == ("::1", 9999)


def test_other_applications_are_left_alone(path: Path) -> None:
    other = {"name": "other", "import_path": "shop.app:build", "route_prefix": "/shop"}
    file = load(path, gateway(), other | {"args": {"anything": 1}})
    assert file.models == ()


def test_a_misspelt_key_of_the_file_is_named_with_the_one_that_was_meant(path: Path) -> None:
    path.write_text(yaml.safe_dump({"applications": [gateway()], "proxy_locaton": "Disabled"}))
    with pytest.raises(ConfigError) as raised:
        load_deployment_file(path, ProcessSettings())
    assert raised.value.param == "proxy_locaton"
    assert f"{path}: proxy_locaton: unknown key" in raised.value.message
    assert raised.value.message.endswith("did you mean proxy_location?")


@pytest.mark.parametrize("args", [None, {}])
def test_a_gateway_needs_no_args(path: Path, args: Any) -> None:
    assert load(path, gateway() | {"args": args}).gateway.port == 8000


@pytest.mark.parametrize("count", [0, 2])
def test_there_is_exactly_one_gateway(path: Path, count: int) -> None:
    error = refusal(path, model("m"), *[gateway()] * count)
    assert error.param == "applications"
    assert GATEWAY_BUILDER in error.message
    assert f"({count} have)" in error.message


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        (model("m", idd="x"), "idd"),
        (model("m", replicas={"min": 3}), "replicas"),
        (model("m", id="n"), "id"),
        (model("m") | {"route_prefix": "/"}, "route_prefix"),
        ({k: v for k, v in model("m").items() if k != "route_prefix"}, "route_prefix"),
        (model("m") | {"args": ["id"]}, "args"),
        (model("m") | {"import_path": "serving.app:build_modell"}, "import_path"),
        (model("m") | {"import_pth": MODEL_BUILDER}, "import_pth"),
        ({"import_path": MODEL_BUILDER}, "name"),
        ({"name": "m"}, "import_path"),
        (model("m") | {"name": 3}, "name"),
        ("m", "applications"),
        (None, "applications"),
    ],
)
def test_a_wrong_application_is_named_with_its_key(path: Path, wrong: Any, param: str) -> None:
    error = refusal(path, gateway(), wrong)
    assert error.param == param
    assert "m" in error.message or "applications[1]" in error.message


def test_a_wrong_value_names_file_application_and_key(path: Path) -> None:
    error = refusal(path, gateway(), model("m", kv_cache_gib=-1))
    assert error.message.startswith(f"{path}: application 'm': model: kv_cache_gib: ")


@pytest.mark.parametrize(
    ("models", "name"),
    [
        ([model("a"), model("a")], "a"),
        ([model("a"), model("b", aliases=["a"])], "a"),
        ([model("a", aliases=["x"]), model("b", aliases=["x"])], "x"),
        ([model("a", aliases=["a"])], "a"),
    ],
)
def test_a_name_belongs_to_one_model(path: Path, models: list[Any], name: str) -> None:
    assert f"the model name {name!r} appears twice" in refusal(path, gateway(), *models).message


def test_a_file_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_deployment_file(path, ProcessSettings())
    with pytest.raises(ConfigError, match="cannot be read"):
        load_deployment_file(path.parent, ProcessSettings())


@pytest.mark.parametrize(
    ("content", "telling"),
    [
        (b"a: [1", "is not YAML (line"),
        (b"\xff\xfe\x00\x01", "is not YAML"),
        (b"at: 2026-99-99", "is not YAML"),
        (b"a: \x07", "is not YAML"),
        (b"? [a]: b", "is not YAML"),
        (b"", "must be a mapping"),
        (b"- a", "must be a mapping"),
        (b"applications: {}", "must be a list"),
        (b"applications: []", "must be a list"),
        (b"other: 1", "other: unknown key; known: applications"),
    ],
)
def test_what_is_no_serve_config_is_refused(path: Path, content: bytes, telling: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        load_deployment_file(path, ProcessSettings())
    assert str(path) in raised.value.message
    assert telling in raised.value.message


DRAWN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["m", "", "a b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "id", "args", "import_path", "site", "keys", "limits"])
            | st.integers(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


# `path` is written anew by every example. A busy machine is no failure.
@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.sampled_from([GATEWAY_BUILDER, MODEL_BUILDER]), DRAWN, DRAWN)
def test_any_yaml_gives_a_file_or_a_named_error(
    path: Path, builder: str, args: Any, other: Any
) -> None:
    try:
        file = load(path, gateway(), application("m", builder) | {"args": args}, other)
    except ConfigError as error:
        named = (str(path) in error.message, bool(error.param))
        assert named == (True, True)
    else:
        assert file.models


@pytest.mark.parametrize("deployments", [5, "GatewayReplica", [5], {"name": "GatewayReplica"}])
def test_deployments_of_another_form_are_refused(tmp_path: Path, deployments: object) -> None:
    path = tmp_path / "site.yaml"
    gateway = {
        "name": "gateway",
        "route_prefix": None,
        "import_path": "serving.app:build_gateway",
        "deployments": deployments,
    }
    path.write_text(yaml.safe_dump({"applications": [gateway]}), encoding="utf-8")
    with pytest.raises(ConfigError, match="deployments: must be a list of mappings with `name`"):
        load_deployment_file(path, ProcessSettings())


def test_a_deployment_that_no_gateway_has_is_refused(tmp_path: Path) -> None:
    wrong = gateway() | {"deployments": [{"name": "gateway", "user_config": {"keys": []}}]}
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump({"applications": [wrong]}))
    with pytest.raises(ConfigError, match=r"deployments\[0\]: name: must be GatewayReplica"):
        load_deployment_file(path, ProcessSettings())
