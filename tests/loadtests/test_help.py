"""Every command of the load tests teaches: a sentence for each option, and an example."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

MODULES = (
    "bench.cli",
    "bench.routing_hash",
    "checks.autoscale_real",
    "checks.chaos.__main__",
    "checks.metering_real",
    "checks.plan_bar",
    "checks.plan_real",
    "checks.referee.__main__",
    "checks.routing_real",
    "commands.load",
    "hostile.cli",
    "plan.__main__",
    "reference.cli",
    "simulation.compare_autoscaling",
    "simulation.compare_routing",
)
# A terminal on which no option is too long for its column.
WIDE = {"COLUMNS": "200", "TERMINAL_WIDTH": "200"}


def leaves(command: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that call it."""
    if not hasattr(command, "commands"):
        yield words, command
        return
    for name, child in command.commands.items():
        yield from leaves(child, *words, name)


@pytest.mark.parametrize("module", MODULES)
def test_help_has_a_sentence_for_each_option_and_an_example(module: str) -> None:
    app = import_module(f"loadtests.{module}").app
    found = list(leaves(typer.main.get_command(app)))
    assert found
    for words, command in found:
        shown = CliRunner().invoke(app, [*words, "--help"], env=WIDE)
        assert shown.exit_code == 0
        assert "Example: " in shown.stdout
        for option in command.params:
            assert option.help, f"{' '.join(words)}: {option.name}"
            assert option.help.endswith("."), option.help
            assert option.help[0].isupper() or not option.help[0].isalpha(), option.help
