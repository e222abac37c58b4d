"""Commands of other packages: there when the package is, and a clear word when it is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from serving.commands import by_name
from serving.errors import StackError


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_group_and_a_single_command_are_added(packages: Path) -> None:
    (packages / "by_name_there.py").write_text(
        "import typer\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def one() -> None: print('one')\n"
        "@app.command()\n"
        "def two() -> None: print('two')\n"
    )
    app = typer.Typer()
    by_name.add(app, "group", "by_name_there:app")
    by_name.add(app, "single", "by_name_there:two")
    assert CliRunner().invoke(app, ["group", "one"]).output == "one\n"
    assert CliRunner().invoke(app, ["single"]).output == "two\n"


@pytest.mark.parametrize("words", [[], ["run", "chat", "--url", "x"], ["--help"]])
def test_a_command_whose_package_is_missing_says_what_to_install(words: list[str]) -> None:
    app = typer.Typer()
    app.command("other")(lambda: None)
    by_name.add(app, "load", "no_such_package_at_all.commands:app")
    result = CliRunner().invoke(app, ["load", *words])
    assert isinstance(result.exception, StackError)
    assert "`comptoir load` is part of the package `no_such_package_at_all`" in str(
        result.exception
    )


def test_a_mistake_in_a_package_that_is_there_is_not_hidden(packages: Path) -> None:
    (packages / "by_name_broken.py").write_text("import no_such_package_at_all\n")
    with pytest.raises(ModuleNotFoundError):
        by_name.add(typer.Typer(), "load", "by_name_broken:app")


def test_serving_can_be_imported_without_what_stands_above_it() -> None:
    code = (
        "import importlib.util as u, sys\n"
        "found = u.find_spec\n"
        "import serving.commands.by_name as by_name\n"
        "by_name.find_spec = lambda name: None if name == 'loadtests' else found(name)\n"
        "import serving.cli\n"
        "assert not [name for name in sys.modules if name.startswith('loadtests')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
