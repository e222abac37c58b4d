"""docs/architecture.md prints the floors and contracts that pyproject.toml has and `make check` holds."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CONTRACTS: list[dict[str, Any]] = tomllib.loads(
    (ROOT / "pyproject.toml").read_text(encoding="utf-8")
)["tool"]["importlinter"]["contracts"]
# The first column of the table of a package's floors.
COLUMNS = {"serving": "floor, top to bottom", "loadtests": "room, top to bottom"}


def section(title: str) -> str:
    """The text under a heading, up to the next one."""
    found = re.search(rf"^#+ {title}\n(.*?)(?=^#|\Z)", PAGE, re.M | re.S)
    assert found, f"there is no heading {title!r}"
    return found.group(1)


def floors(column: str) -> list[list[str]]:
    """Modules of each row of the table whose first column is called so."""
    table = re.search(rf"^\| {column} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.M)
    assert table, f"there is no table of {column!r}"
    cells = [row.split("|")[1] for row in table.group(1).splitlines()]
    return [sorted(re.findall(r"`(\w+)(?:/|\.py)`", cell)) for cell in cells]


def names(patterns: Sequence[str]) -> str:
    return ", ".join(f"`{pattern}`" for pattern in patterns)


def printed(contract: Mapping[str, Any]) -> str:
    """A contract as the page shall have it."""
    match contract["type"]:
        case "layers":
            what = f"the table of `{contract['containers'][0]}/`"
        case "only_in":
            what = f"`{contract['package']}` in {names(contract['importers'])}"
        case "forbidden":
            what = f"{names(contract['source_modules'])} nothing of {names(contract['forbidden_modules'])}"
        case "reads":
            but = f" (but {names(contract['but'])})" if contract.get("but") else ""
            of = f"of `{contract['package']}` only {names(contract['may'])}"
            what = f"{names(contract['readers'])}{but} {of}"
        case kind:
            raise AssertionError(f"say here how a contract of type {kind!r} is printed")
    return f"- **{contract['name']}**: {what}."


def test_every_contract_is_printed_as_it_is() -> None:
    entries = re.findall(r"^- .*(?:\n  .*)*", section("Contracts"), re.M)
    assert [" ".join(entry.split()) for entry in entries] == [printed(each) for each in CONTRACTS]


@pytest.mark.parametrize("package", COLUMNS)
def test_the_table_of_floors_is_that_of_the_contract(package: str) -> None:
    (contract,) = [each for each in CONTRACTS if each.get("containers") == [package]]
    layers = [sorted(re.findall(r"\w+", layer)) for layer in contract["layers"]]
    assert floors(COLUMNS[package]) == layers


@pytest.mark.parametrize("package", COLUMNS)
def test_every_module_stands_on_a_floor(package: str) -> None:
    there = {
        path.stem
        for path in (ROOT / package).iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    printed = {name for row in floors(COLUMNS[package]) for name in row}
    assert there - {"__init__", "__main__"} <= printed


def test_a_room_that_somebody_has_moved_into_is_no_longer_in_italics() -> None:
    empty = re.findall(r"\*`(\w+)/`\*", section("The house"))
    assert empty
    assert not [name for name in empty if (ROOT / "serving" / name).exists()]
