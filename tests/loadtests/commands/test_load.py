"""Options of `comptoir load`: what does not fit is answered by the option's name, before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from loadtests.commands.load import app
from serving.errors import ConfigError


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMPTOIR_API_KEY", raising=False)


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize(
    ("option", "value"),
    [("--input", "0"), ("--input", "3000000"), ("--output", "two"), ("--output", "-1")],
)
def test_a_length_that_is_none_is_refused(command: str, option: str, value: str) -> None:
    result = CliRunner().invoke(app, [command, "chat", option, value], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert option in result.output


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize(
    ("options", "param"),
    [
        (["--model", ""], "--model"),
        (["--key", "sk-canary\n"], "--key"),
        (["--key-env", "web"], "--key-env"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(
    command: str, options: list[str], param: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(app, [command, "chat", *options, "--out", str(out)])
    assert isinstance(result.exception, ConfigError)
    assert result.exception.param == param
    assert "canary" not in result.exception.message
    assert not out.exists()
