"""The command as a whole: what it offers, how it ends, what it imports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from serving import __version__, cli
from serving.environment import as_exports
from serving.errors import CatalogueError, ComptoirError, ConfigError, LicenceError, StackError

COMMANDS = ("up", "down", "status", "chat", "check", "env", "keys", "catalogue", "tiny", "route")


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, list(words), env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_help_names_every_command_and_the_exit_codes() -> None:
    code, text = run("--help")
    assert code == 0
    for command in COMMANDS:
        assert f" {command} " in text
    assert "Exit codes: 0 done, 1 failed, 2 wrong" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    code, text = run(command, "--help")
    assert code == 0
    assert "Usage:" in text


def leaves(command: Any, *words: str) -> Iterator[tuple[str, ...]]:
    """Every command that does something, as it is typed."""
    if not hasattr(command, "commands"):
        yield words
        return
    for name, child in command.commands.items():
        yield from leaves(child, *words, name)


@pytest.mark.parametrize("words", [*leaves(typer.main.get_command(cli.app))], ids=" ".join)
def test_every_command_teaches_with_an_example_of_itself(words: tuple[str, ...]) -> None:
    assert re.search(rf"Example: .*comptoir {' '.join(words)}\b", run(*words, "--help")[1])


def test_the_version_is_the_packages() -> None:
    assert run("--version") == (0, f"comptoir {__version__}\n")


def test_env_prints_the_exports() -> None:
    assert run("env") == (0, as_exports() + "\n")


def test_an_unknown_command_or_option_is_wrong_input() -> None:
    assert run("serve")[0] == 2
    assert run("up", "--prot", "1")[0] == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("gateway: port: wrong"), 2),
        (CatalogueError("no such entry"), 2),
        (LicenceError("not in the EU"), 2),
        (StackError("Ray does not start"), 1),
        (ComptoirError("something"), 1),
    ],
)
def test_an_error_of_ours_is_one_sentence_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: ComptoirError,
    code: int,
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    shown = capsys.readouterr()
    assert shown.err == f"error: {error.message}\n"
    assert shown.out == ""


def test_a_failing_command_shows_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serving.cli", "up", str(tmp_path / "none.yaml")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert "cannot be read" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_command_imports_nothing_heavy_until_it_needs_it() -> None:
    heavy = ("ray", "vllm", "torch", "transformers", "fastapi")
    code = f"import sys, serving.cli; print([n for n in {heavy!r} if n in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_a_place_that_cannot_be_written_to_is_one_sentence() -> None:
    environment = os.environ | {"COMPTOIR_CACHE_DIR": "/proc/nowhere"}
    ended = subprocess.run(
        [sys.executable, "-m", "serving.cli", "tiny", "build", "qwen3"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "error: /proc/nowhere" in ended.stderr
    assert "COMPTOIR_CACHE_DIR" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_user_without_a_home_is_told_what_to_set() -> None:
    script = (
        "import os, pathlib\n"
        "def nowhere(self): raise RuntimeError\n"
        "pathlib.Path.expanduser = nowhere\n"
        "from serving.cli import main\n"
        "import sys; sys.argv = ['comptoir', 'status']; main()"
    )
    environment = {k: v for k, v in os.environ.items() if k != "COMPTOIR_CACHE_DIR"}
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment
    )
    assert ended.returncode == 2
    assert "set HOME, or give an absolute path" in ended.stderr
    assert "Traceback" not in ended.stderr
