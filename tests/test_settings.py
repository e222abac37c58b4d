"""Configuration: defaults, precedence, and errors that name the key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from serving.config.autoscaling import AutoscalingConfig
from serving.config.browsers import CorsConfig
from serving.config.connections import ConnectionsConfig
from serving.config.prefill import PrefillConfig
from serving.errors import ConfigError
from serving.settings import (
    GatewayConfig,
    KeyConfig,
    ModelConfig,
    ProcessSettings,
    RequestLimits,
    SiteConfig,
    hash_key,
)

# A busy machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

DOCUMENT = Path(__file__).parents[1] / "docs" / "configuration.md"
HASH = hash_key("sk-comptoir-a")
PROCESS = ProcessSettings()


def gateway(**args: Any) -> GatewayConfig:
    return GatewayConfig.from_args(args, PROCESS)


def key(name: str = "acme", plain: str = "a", **fields: Any) -> dict[str, Any]:
    return {"name": name, "hash": hash_key(plain)} | fields


def refusal(build: Any, *args: Any, **kwargs: Any) -> ConfigError:
    with pytest.raises(ConfigError) as raised:
        build(*args, **kwargs)
    return raised.value


def attempt(build: Any, *args: Any) -> tuple[Any, ConfigError | None]:
    """What it builds, or why it refuses; anything else is raised."""
    try:
        return build(*args), None
    except ConfigError as error:
        return None, error


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        ({"keys": {"name": "a"}}, "keys: must be a list"),
        ({"keys": ["a"]}, "keys.0: must be a mapping"),
        ({"limits": []}, "limits: must be a mapping"),
        ({"routing": {"aliases": "a"}}, "routing.aliases: must be a mapping"),
        ({"port": "8e3"}, "YAML takes 8e3 for text; write all digits"),
        ({"port": "many"}, "port: must be a whole number"),
        ({"port": 1.5}, "port: must be a whole number"),
        ({"port": 0}, "port: must be at least 1"),
        ({"port": 70000}, "port: must be at most 65535"),
        ({"drain_timeout_s": "long"}, "drain_timeout_s: must be a number"),
        ({"discovery_period_s": 0}, "discovery_period_s: must be above 0"),
        ({"connections": {"proxy_protocol": 7}}, "proxy_protocol: must be true or false"),
        ({"host": 1}, "host: must be text: put it in quotes"),
        ({"keys": [key(scopes=[])]}, "keys.0.scopes: must have 1 item or more"),
        ({"keys": [key(priority="first")]}, "must be 'interactive', 'standard' or 'batch'"),
    ],
)
def test_what_has_the_wrong_shape_is_told_in_the_words_of_yaml(
    args: dict[str, Any], complaint: str
) -> None:
    assert refusal(gateway, **args).message.endswith(complaint)


# ---- defaults ----------------------------------------------------------------------------------------


def test_an_empty_gateway_listens_on_this_machine_only_and_needs_no_key() -> None:
    config = gateway()
    assert (config.host, config.port, config.keys) == ("127.0.0.1", 8000, ())
    assert config.is_loopback


def test_a_model_is_the_catalogue_entry_of_its_name_unless_said_otherwise() -> None:
    assert ModelConfig(id="qwen3-32b").entry == "qwen3-32b"
    assert ModelConfig(id="mine", catalogue="qwen3-32b").entry == "qwen3-32b"


@pytest.mark.parametrize(
    "config",
    [GatewayConfig(), ModelConfig(id="m"), RequestLimits(), SiteConfig(), AutoscalingConfig()],
)
def test_configuration_cannot_be_changed(config: BaseModel) -> None:
    name = next(iter(type(config).model_fields))
    with pytest.raises(ValidationError):
        setattr(config, name, "changed")


# ---- precedence --------------------------------------------------------------------------------------


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPTOIR_PORT", "9100")
    monkeypatch.setenv("COMPTOIR_HOST", "::1")
    config = GatewayConfig.from_args({"port": 8000, "host": "127.0.0.1"}, ProcessSettings.load())
    assert (config.host, config.port) == ("::1", 9100)


def test_the_file_wins_over_the_default() -> None:
    assert gateway(port=9200).port == 9200


def test_a_tilde_in_the_cache_folder_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPTOIR_CACHE_DIR", "~/models")
    assert ProcessSettings.load().cache_dir == Path("~/models").expanduser()


def test_the_device_is_read_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPTOIR_DEVICE", "CPU")
    assert ProcessSettings.load().device == "cpu"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COMPTOIR_PORT", "70000"),
        ("COMPTOIR_PORT", "http"),
        ("COMPTOIR_PORT", ""),
        ("COMPTOIR_DEVICE", "tpu"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    error = refusal(ProcessSettings.load)
    assert name in error.message
    assert error.param == name


# ---- wrong values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "param"),
    [
        ({"prot": 8000}, "prot"),
        ({"port": 0}, "port"),
        ({"port": "eighty"}, "port"),
        ({"discovery_period_s": 0}, "discovery_period_s"),
        ({"discovery_period_s": float("nan")}, "discovery_period_s"),
        ({"drain_timeout_s": float("inf")}, "drain_timeout_s"),
        ({"site": {"jurisdiction": "Germany"}}, "site.jurisdiction"),
        ({"limits": {"max_n": 0}}, "limits.max_n"),
        ({"limits": {"max_m": 1}}, "limits.max_m"),
        ({"keys": [key(priority="first")]}, "keys.0.priority"),
        ({"keys": [key(), {"name": "b", "hash": "sk-secret"}]}, "keys.1.hash"),
        ({"keys": [key(weight=0)]}, "keys.0.weight"),
        ({"keys": [key(name="has space")]}, "keys.0.name"),
        ({"keys_file": "keys.yaml"}, "keys_file"),
        ({"metering": {"journal": "bills"}}, "metering.journal"),
        ({"connections": {"trusted_proxies": ["10.1.0.5/16"]}}, "connections.trusted_proxies"),
        ({"connections": {"trusted_proxies": [10]}}, "connections.trusted_proxies"),
    ],
)
def test_a_wrong_gateway_value_is_refused_by_its_dotted_key(
    args: dict[str, Any], param: str
) -> None:
    error = refusal(gateway, **args)
    assert error.param == param
    assert error.message.startswith(f"gateway: {param}: ")


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("10.1.0.5/16", "; 10.1.0.5/16 is in the network 10.1.0.0/16"),
        ("proxy.example", "each as text"),
        ("10.1.0.0/160", "each as text"),
        (10, "each as text"),
    ],
)
def test_a_proxy_that_is_no_network_is_refused_with_the_one_that_was_meant(
    wrong: object, meant: str
) -> None:
    message = refusal(gateway, connections={"trusted_proxies": [wrong]}).message
    assert "networks such as 10.1.0.0/16" in message
    assert message.endswith(meant)


def test_a_header_of_the_proxy_protocol_needs_somebody_who_may_send_it() -> None:
    assert "trusted_proxies" in refusal(gateway, connections={"proxy_protocol": True}).message
    proxied = {"proxy_protocol": True, "trusted_proxies": ["192.0.2.1"]}
    assert gateway(connections=proxied).connections.proxy_protocol


@pytest.mark.parametrize(
    ("build", "args"),
    [
        (gateway, {"keys_file": "keys.yaml"}),
        (gateway, {"metering": {"journal": "./bills"}}),
        (
            lambda **args: ModelConfig.from_args({"id": "m"} | args),
            {"catalogue_files": ["own.yaml"]},
        ),
    ],
)
def test_a_file_that_another_process_reads_has_an_absolute_path(
    build: Any, args: dict[str, Any]
) -> None:
    assert "must be an absolute path" in refusal(build, **args).message


@pytest.mark.parametrize(
    "args", [{"site": {"jurisdiction": "Germany"}}, {"keys": [key(name="has space")]}]
)
def test_a_wrong_name_is_refused_in_words(args: dict[str, Any]) -> None:
    message = refusal(gateway, **args).message
    assert "letters" in message
    assert "[A-Z" not in message, "a pattern is no help to those who do not read them"


@pytest.mark.parametrize(
    ("args", "param"),
    [
        ({}, "id"),
        ({"id": ""}, "id"),
        ({"id": "a model"}, "id"),
        ({"id": "m\n"}, "id"),
        ({"id": "m", "aliases": ["ok", "not ok"]}, "aliases"),
        ({"id": "m", "device": "tpu"}, "device"),
        ({"id": "m", "layout": -1}, "layout"),
        ({"id": "m", "kv_cache_gib": 0}, "kv_cache_gib"),
        ({"id": "m", "revision": ""}, "revision"),
        ({"id": "m", "replicas": {"min": 2, "max": 1}}, "replicas"),
        ({"id": "m", "replicas": {"minimum": 1}}, "replicas.minimum"),
        ({"id": "m", "env": {"A": 1}}, "env.A"),
        ({"id": "m", "engine_args": {"trust_remote_code": False}}, "engine_args"),
        ({"id": "m", "engine_args": {"model": "x"}}, "engine_args"),
        ({"id": "m", "engine_args": {"load_format": "dummy"}}, "engine_args"),
    ],
)
def test_a_wrong_model_value_is_refused_by_its_dotted_key(args: dict[str, Any], param: str) -> None:
    error = refusal(ModelConfig.from_args, args)
    assert error.param == param
    assert param in error.message


def test_an_unknown_key_comes_with_those_that_exist_at_its_place() -> None:
    assert "keys_file" in refusal(gateway, prot=1).message
    assert "max_body_bytes" in refusal(gateway, limits={"max_body": 1}).message
    assert "priority" in refusal(gateway, keys=[key(prio="batch")]).message
    assert "max" in refusal(ModelConfig.from_args, {"id": "m", "replicas": {"maxi": 1}}).message


@pytest.mark.parametrize(
    ("args", "known", "meant"),
    [
        ({"prot": 1}, "drain_timeout_s", "port"),
        ({"limits": {"max_output_token": 1}}, "max_body_bytes", "max_output_tokens"),
        ({"routing": {"fallbacks": {"m": {"too": ["n"]}}}}, "after", "to"),
        ({"routing": {"aliases": {"m": {"arms": [{"modl": "n"}]}}}}, "weight", "model"),
    ],
)
def test_a_misspelt_key_comes_with_the_one_that_was_meant(
    args: dict[str, Any], known: str, meant: str
) -> None:
    message = refusal(gateway, **args).message
    assert known in message.partition("known: ")[2]
    assert message.endswith(f"did you mean {meant}?")


def test_a_key_like_no_other_gets_no_guess() -> None:
    assert "did you mean" not in refusal(gateway, zebra=1).message


def test_a_number_where_text_is_wanted_is_to_be_quoted() -> None:
    error = refusal(ModelConfig.from_args, {"id": "m", "env": {"OMP_NUM_THREADS": 4}})
    assert error.message.endswith("env.OMP_NUM_THREADS: must be text: put it in quotes")


def test_a_misspelt_required_key_is_called_unknown_rather_than_missing() -> None:
    error = refusal(gateway, keys=[{"nmae": "acme", "hash": HASH}])
    assert error.param == "keys.0.nmae"
    assert "unknown key" in error.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@unhurried
@given(st.dictionaries(st.sampled_from(sorted(GatewayConfig.model_fields)) | st.text(), JSON))
def test_any_gateway_args_give_a_configuration_or_a_named_error(args: dict[str, Any]) -> None:
    # A path that is drawn must not be read from this machine.
    args.pop("keys_file", None)
    config, error = attempt(GatewayConfig.from_args, args, PROCESS)
    if error is not None:
        assert error.param
        assert error.message.startswith("gateway: ") or error.param == "keys"
    else:
        assert set(args) <= set(GatewayConfig.model_fields)
        assert config.is_loopback or config.keys


@unhurried
@given(
    st.dictionaries(st.sampled_from(sorted(ModelConfig.model_fields)) | st.text(), JSON),
    st.text(max_size=100),
)
def test_any_model_args_give_a_configuration_or_a_named_error(
    args: dict[str, Any], model_id: str
) -> None:
    config, error = attempt(ModelConfig.from_args, {"id": model_id} | args)
    if error is not None:
        assert error.param
    else:
        assert set(args) <= set(ModelConfig.model_fields)
        assert re.fullmatch(r"[\w.:/-]{1,96}", config.id, re.ASCII)
        assert config.replicas.min <= config.replicas.max


@unhurried
@given(st.text(), st.text())
def test_a_hash_says_whether_two_keys_are_the_same(one: str, other: str) -> None:
    assert (hash_key(one) == hash_key(other)) == (one == other)
    assert KeyConfig(name="k", hash=hash_key(one)).hash == hash_key(one)


@pytest.mark.parametrize(
    "wrong",
    ["", "sk-comptoir-a", HASH.removeprefix("sha256:"), HASH.upper(), HASH + "\n", HASH[:-1]],
)
def test_what_is_not_a_hash_is_refused_and_never_repeated(wrong: str) -> None:
    error = refusal(gateway, keys=[{"name": "acme", "hash": wrong}])
    assert error.param == "keys.0.hash"
    assert not wrong or wrong not in error.message


# ---- who can reach it --------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert gateway(host=host).keys == ()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "node-1.example.eu", ""])
def test_an_endpoint_that_others_can_reach_needs_a_key(host: str) -> None:
    error = refusal(gateway, host=host)
    assert error.param == "keys"
    assert "comptoir keys new" in error.message
    assert gateway(host=host, keys=[key()]).host == host


def test_an_address_from_the_environment_needs_a_key_too() -> None:
    process = ProcessSettings(host="0.0.0.0")
    assert refusal(GatewayConfig.from_args, {}, process).param == "keys"


# ---- keys_file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["list", "mapping"])
def test_keys_of_the_file_are_added_to_those_of_the_args(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "keys.yaml"
    entries = [key("b", "b", models=["m"])]
    path.write_text(yaml.safe_dump(entries if shape == "list" else {"keys": entries}))
    config = gateway(host="0.0.0.0", keys=[key("a", "a")], keys_file=str(path))
    assert [one.name for one in config.keys] == ["a", "b"]
    assert config.keys[1].models == ("m",)


@pytest.mark.parametrize(
    ("content", "telling"),
    [
        (b"", "list of keys"),
        (b"just text", "list of keys"),
        (b"keys: {}", "list of keys"),
        (b"[]", "holds no key"),
        (b"{]", "not YAML"),
        (b"\xff\xfe\x00", "not YAML"),
        (b"- at: 2026-99-99", "not YAML"),
        (b"- text", "keys_file[0]: name"),
        (b"- {name: a}", "keys_file[0]: hash"),
        (b"- {name: a, hash: sk-comptoir-secret}", "keys_file[0]: hash"),
    ],
)
def test_a_wrong_keys_file_is_explained_without_its_text(
    tmp_path: Path, content: bytes, telling: str
) -> None:
    path = tmp_path / "keys.yaml"
    path.write_bytes(content)
    error = refusal(gateway, keys_file=str(path))
    assert telling in error.message
    assert "secret" not in error.message


def test_a_keys_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    error = refusal(gateway, keys_file=str(tmp_path / "none.yaml"))
    assert error.param == "keys_file"
    assert "none.yaml" in error.message


def test_a_name_stands_once_in_args_and_file_together(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(yaml.safe_dump([key("acme", "b")]))
    assert (
        "'acme' appears twice" in refusal(gateway, keys=[key("acme", "a")], keys_file=path).message
    )
    assert "'acme' appears twice" in refusal(gateway, keys=[key("acme", "a"), key()]).message


def test_one_key_has_one_name() -> None:
    error = refusal(gateway, keys=[key("a", "same"), key("b", "same")])
    assert "the hash of 'a' appears twice" in error.message


# ---- the document ------------------------------------------------------------------------------------

ROW = re.compile(r"^\| `([A-Za-z_.]+)` \| (.+?) \| .+ \|$", re.MULTILINE)


def section(title: str) -> str:
    parts = re.split(r"^#{1,3} ", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return next(part for part in parts if part.startswith(title + "\n"))


@pytest.mark.parametrize(
    ("title", "prefix", "model"),
    [
        ("The gateway", "", GatewayConfig),
        ("Limits of a request", "limits.", RequestLimits),
        ("Connections", "connections.", ConnectionsConfig),
        ("Browsers", "cors.", CorsConfig),
        ("API keys", "keys.", KeyConfig),
        ("The site", "site.", SiteConfig),
        ("A model", "", ModelConfig),
        ("Replicas", "replicas.", AutoscalingConfig),
        ("Prefill replicas", "prefill.", PrefillConfig),
    ],
)
def test_the_document_has_every_key_with_its_default(
    title: str, prefix: str, model: type[BaseModel]
) -> None:
    rows = dict(ROW.findall(section(title)))
    assert set(rows) == {prefix + name for name in model.model_fields}
    for name, field in model.model_fields.items():
        said = rows[prefix + name]
        if field.is_required():
            assert said == "required", name
        elif isinstance(field.default, int | float | str):
            word = str(field.default)
            assert said == f"`{word.lower() if isinstance(field.default, bool) else word}`", name


def test_the_document_has_every_variable() -> None:
    rows = dict(ROW.findall(section("Environment variables")))
    wanted = {f"COMPTOIR_{name.upper()}" for name in ProcessSettings.model_fields}
    assert set(rows) == wanted | {"COMPTOIR_API_KEY"}


def test_the_documents_yaml_is_accepted() -> None:
    blocks = re.findall(r"^```yaml\n(.+?)^```", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)
    documents = [yaml.safe_load(block) for block in blocks]
    applications = documents[0]["applications"]
    assert gateway(**applications[0]["args"]).port == 8000
    assert ModelConfig.from_args(applications[1]["args"]).id == applications[1]["name"]
    assert SiteConfig(**documents[1]["site"]).jurisdiction == "DE"
