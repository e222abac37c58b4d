"""`comptoir keys new`: the key is shown once, the entry is what the gateway takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from serving.commands.keys import app
from serving.errors import ConfigError
from serving.settings import GatewayConfig, ProcessSettings, hash_key
from serving.tenancy.keys import KeyRing


def new(*words: str) -> Result:
    return CliRunner().invoke(app, ["new", *words])


def made(*words: str) -> tuple[str, dict[str, Any]]:
    result = new(*words, "--json")
    assert result.exit_code == 0, result.output
    body = json.loads(result.stdout)
    return body["key"], body["entry"]


def test_the_entry_holds_the_hash_and_not_the_key() -> None:
    key, entry = made("acme")
    assert entry == {
        "name": "acme",
        "hash": hash_key(key),
        "scopes": ["inference"],
        "models": ["*"],
        "priority": "standard",
        "weight": 1.0,
    }
    assert key not in json.dumps(entry)


def test_options_stand_in_the_entry() -> None:
    words = ("--model", "a", "--model", "b", "--priority", "batch", "--weight", "2.5")
    _, entry = made("acme", *words)
    assert (entry["models"], entry["priority"], entry["weight"]) == (["a", "b"], "batch", 2.5)


def test_a_scope_stands_in_the_entry_once() -> None:
    words = ("--scope", "operator", "--scope", "inference", "--scope", "operator")
    assert made("ops", *words)[1]["scopes"] == ["operator", "inference"]
    assert made("prometheus", "--scope", "metrics")[1]["scopes"] == ["metrics"]


def test_every_key_is_another() -> None:
    assert made("acme")[0] != made("acme")[0]


def test_what_is_printed_is_a_keys_file_that_lets_the_key_in(tmp_path: Path) -> None:
    result = new("acme", "--model", "m")
    key = next(line for line in result.stdout.splitlines() if line.startswith("key")).split()[-1]
    path = tmp_path / "keys.yaml"
    path.write_text(result.stdout.partition("keys_file:\n")[2])
    assert isinstance(yaml.safe_load(path.read_text()), list)
    config = GatewayConfig.from_args({"keys_file": path}, ProcessSettings())
    assert KeyRing(config.keys).identify(f"Bearer {key}").models == {"m"}


@pytest.mark.parametrize(
    ("words", "param"),
    [
        (("has space",), "name"),
        (("acme", "--priority", "first"), "priority"),
        (("acme", "--weight", "0"), "weight"),
        (("acme", "--scope", "root"), "scopes.0"),
    ],
)
def test_a_wrong_option_is_named_and_no_key_is_shown(words: tuple[str, ...], param: str) -> None:
    result = new(*words)
    assert isinstance(result.exception, ConfigError)
    assert result.exception.param == param
    assert "sk-comptoir-" not in result.output
